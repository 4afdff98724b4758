"""What all tests share: how the threads of this process wait, and what its garbage collector leaves alone."""

import gc
import os

# Read when torch is imported: threads that wait for each other leave their cores to others soon.
os.environ.setdefault("GOMP_SPINCOUNT", "4000")


def pytest_collection_finish() -> None:
    # vLLM collects six times while an engine starts; forks share the memory of what no collection walks through.
    gc.collect()
    gc.freeze()
