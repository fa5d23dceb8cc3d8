"""What several methods or extras share: gauges, an order of components, steps of the server. May use kernels."""
