"""Writes results: shards, and journals that keep finished rows until their shard is complete."""
