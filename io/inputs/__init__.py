"""Reads the rows of datasets: one `Source` (source.py) for each input format."""
