"""What a client keeps of what it has not sent. Numpy and kernels."""
