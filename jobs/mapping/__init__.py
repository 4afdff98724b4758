"""Input rows to mapped rows, in bulk, in a pool of worker processes."""
