"""The offline stage: which rank suits a model, its data and a latency budget. May use federation and below."""
