"""The machine that a process runs on: its cores, GPUs, processes and signals, and what Slurm says of them."""
