"""Reads datasets and images, writes journals and shards, coordinates processes. Knows nothing of models or jobs."""
