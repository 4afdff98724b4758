"""One run of a job, or of a share of it: from the shards to generate to the last commit."""
