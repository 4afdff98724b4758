"""What all tests share: the garbage collector leaves alone what was there before the first of them."""

import gc


def pytest_collection_finish() -> None:
    # vLLM collects six times while an engine starts; forks share the memory of what no collection walks through.
    gc.collect()
    gc.freeze()
