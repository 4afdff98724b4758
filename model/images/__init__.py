"""Turns encoded images into the tensors that a model takes: decode, resize, normalize."""
