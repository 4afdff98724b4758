"""Encoded images to the tensors that a model takes: decode, resize, normalize."""
