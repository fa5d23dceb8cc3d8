"""What can be added to any method: a term of the loss, control variates. One paper a file. May use methods/base."""
