"""Rows of every kind of trouble, for the demo's model: what each is, and what becomes of it."""

from bad_rows import features, images, paths, texts
from bad_rows.paths import make_media
from bad_rows.row import CASES, BadRow, columns, of_bytes

__all__ = ["CASES", "BadRow", "columns", "features", "images", "make_media", "of_bytes", "paths", "texts"]
