"""A job: what it is, how it runs, what became of it."""
