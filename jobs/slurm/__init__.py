"""run-batch submit: a job as a Slurm array."""
