"""A job's model, engine and sampling settings, checked against the checkpoint and the installed vLLM."""
