"""Several engines of one machine as one run: a parent process starts them, and each is a share of the job."""
