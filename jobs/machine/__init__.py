"""The machine that a process runs on: CPU cores, GPUs, process trees, signals, and Slurm's environment."""
