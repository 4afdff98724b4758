"""Finished rows on disk: in the journal at once, in their shard once it is whole, in the counts of commits."""
