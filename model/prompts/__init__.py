"""Turns prompt text and chat messages into token ids."""
