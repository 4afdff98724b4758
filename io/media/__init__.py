"""Image cells of a row to encoded bytes, from inside the media root and from allowed hosts only."""
