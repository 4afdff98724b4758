"""A job's model, engine and sampling settings, held against the checkpoint and the vLLM that is installed."""
