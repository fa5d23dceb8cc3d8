"""What a single run looks like: its figures, its page, its closing table. May use what lies in report."""
