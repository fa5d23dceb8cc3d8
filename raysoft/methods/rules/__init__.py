"""What several methods share: gauges, a shared order of components. May use kernels."""
