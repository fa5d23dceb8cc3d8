"""What several methods share: averaging over senders, gauges, a shared order of components. May use kernels."""
