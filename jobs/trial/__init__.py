"""`run-batch try`: a few rows of a job from end to end, without results on disk."""
