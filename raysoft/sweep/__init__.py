"""Ray Tune over any configuration keys; each trial is a resumable run. May use comparison and below."""
