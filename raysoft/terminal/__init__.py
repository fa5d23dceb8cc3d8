"""The command line and what it prints. May use everything."""
