"""What is kept of the last values, and what has to go."""

from run_batch.model.rendering.lru_cache import LruCache


def test_the_values_used_last_are_kept_within_the_limit() -> None:
    cache: LruCache[str] = LruCache(max_bytes=10)
    cache.put("a", "A", 4)
    cache.put("b", "B", 4)
    assert cache.get("a") == "A"
    cache.put("c", "C", 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == ("A", None, "C")


def test_a_value_larger_than_the_limit_is_not_kept_and_drives_no_other_out() -> None:
    cache: LruCache[str] = LruCache(max_bytes=10)
    cache.put("a", "A", 4)
    cache.put("b", "B", 11)
    assert cache.get("a") == "A" and cache.get("b") is None
    cache.put("c", "C", 10)
    assert cache.get("c") == "C"


def test_a_value_that_is_put_again_counts_once() -> None:
    cache: LruCache[str] = LruCache(max_bytes=10)
    for value in "ABC":
        cache.put("a", value, 4)
    cache.put("b", "B", 6)
    assert (cache.get("a"), cache.get("b")) == ("C", "B")
    cache.put("a", "A", 11)
    assert cache.get("a") is None and cache.get("b") == "B"
