"""What the units of an update are worth and what they cost. May use numpy and kernels."""
