"""What several methods share, or one needs a page for: gauges, orders, weights, a base that drifts. May use kernels."""
