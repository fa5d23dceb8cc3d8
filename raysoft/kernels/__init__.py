"""Numpy kernels and numerical switches that siblings share. May use types and errors."""
