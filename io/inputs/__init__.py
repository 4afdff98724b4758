"""Rows of data sets: one file for each input format, all behind the protocol of source.py."""
