"""Coordinates processes that share an output folder, by files: leases and claims."""
