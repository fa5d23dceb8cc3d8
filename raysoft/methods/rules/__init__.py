"""What several methods or extras share, or one needs a page for: gauges, orders, weights, steps. May use kernels."""
