"""Who sends how much over which share of the band: one allocator a file. May use wireless, kernels and below."""
