"""What is trained, sent and averaged: one paper a file. May use kernels and below; torch only inside loss terms."""
