"""What a sweep looks like: its figures and page. May use what lies in report."""
