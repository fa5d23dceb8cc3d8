"""What a comparison looks like: its panels, captions and page."""
