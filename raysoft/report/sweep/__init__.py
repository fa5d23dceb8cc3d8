"""What a sweep looks like: its figures and page."""
