"""What the units of an update are worth and what they cost. Numpy and kernels."""
