"""Renders prompts and their images to what vLLM's engine takes, many rows at once."""
