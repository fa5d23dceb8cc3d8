"""What lies on disk: files, run folders, their reading and summary. May use config and below."""
