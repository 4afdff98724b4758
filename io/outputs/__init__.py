"""What a run writes: shards of results, and the journal of finished rows before their shard is whole."""
