"""The files by which processes that share an output folder coordinate: leases and claims."""
