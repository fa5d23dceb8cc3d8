"""The base model and its training; the only place of torch, transformers and peft. May use data and below."""
