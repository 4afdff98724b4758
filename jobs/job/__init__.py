"""What a job is: its configuration, its rows and shards, its identity, and how it can fail."""
