"""What a client keeps of what it has not sent. May use numpy and kernels."""
