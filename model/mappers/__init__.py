"""Bulk mappers for models that vLLM ships: tensors equal to those of its processors to the last bit, in half the time.

A family is a file, built of what `patches.py` and `tiles.py` have. `shipped.py` names the families.
"""
