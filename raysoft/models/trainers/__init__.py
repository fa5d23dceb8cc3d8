"""Training of many clients in one pass."""
