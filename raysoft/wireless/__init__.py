"""Channels, links and rates: one channel a file. May use config, types and units."""
