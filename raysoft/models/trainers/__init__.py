"""Training of many clients in one pass. May use models."""
