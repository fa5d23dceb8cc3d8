"""What a comparison looks like: its panels, captions and page. May use what lies in report."""
