"""`run-batch init`: a job.toml for an input."""
