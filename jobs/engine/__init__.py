"""vLLM's engine, and what keeps a run going when it dies or hangs."""
