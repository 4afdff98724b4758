"""Bulk mappers for models that vLLM ships: the tensors of its own processors bit for bit, at several times their speed.

A family is a file, built of what `patches.py` has. `shipped.py` names the families.
"""
