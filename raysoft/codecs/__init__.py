"""What an update becomes on the air, bit by bit: one codec a file. May use kernels and below."""
