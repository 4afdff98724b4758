"""Prompt text and chat messages to token ids."""
