"""Reads the images of rows: from the cell itself, from files below the media root, and from allowed hosts."""
