"""What is kept of the last values, and what has to go."""

from run_batch.model.rendering.lru_cache import Recent


def test_the_values_used_last_are_kept_within_the_limit() -> None:
    recent: Recent[str] = Recent(max_bytes=10)
    recent.put("a", "A", 4)
    recent.put("b", "B", 4)
    assert recent.get("a") == "A"
    recent.put("c", "C", 4)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == ("A", None, "C")


def test_a_value_larger_than_the_limit_is_not_kept() -> None:
    recent: Recent[str] = Recent(max_bytes=10)
    recent.put("a", "A", 4)
    recent.put("b", "B", 11)
    assert recent.get("a") is None and recent.get("b") is None
    recent.put("c", "C", 10)
    assert recent.get("c") == "C"
