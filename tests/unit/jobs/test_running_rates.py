"""Rates of a job over time, from the lines that its processes write while they run."""

import json
from pathlib import Path

import pytest

from run_batch.jobs.watch.running_rates import running_rates


def write_metrics(folder: Path, lines: list[tuple[float, float, int]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps({"time": t, "seconds": s, "rows_finished": n, "more": 1}) for t, s, n in lines]
    (folder / "metrics.jsonl").write_text("\n".join(["", "{torn", *texts, '{"time": 1']))


def test_a_constant_rate_is_shown_as_constant(tmp_path: Path) -> None:
    lines, now = [], 1000.37
    for seconds in [1.3, 1.3, 1.3, 0.7] * 30:
        now += seconds
        lines.append((now, seconds, round(100 * seconds)))
    write_metrics(tmp_path, lines)
    found = running_rates(tmp_path)
    assert found.rates == pytest.approx([100.0] * len(found.rates)) and len(found.rates) > 100 and not found.gaps


def test_time_between_runs_is_left_out_and_marked_and_processes_add_up(tmp_path: Path) -> None:
    def run(start: float, seconds: int) -> list[tuple[float, float, int]]:
        return [(start + i + 1, 1.0, 100) for i in range(seconds)]

    write_metrics(tmp_path / "shares" / "0-of-2", [*run(5000, 50), *run(9000, 50)])
    write_metrics(tmp_path / "shares" / "1-of-2", [*run(5000, 50), *run(9000, 50)])
    found = running_rates(tmp_path)
    assert found.seconds == 100 and found.rates == pytest.approx([200.0] * 100)
    assert found.gaps == [(50.0, 3950.0)]


def test_metrics_without_a_line_show_nothing(tmp_path: Path) -> None:
    write_metrics(tmp_path, [(float("nan"), 1.0, 1), (1.0, 0.0, 1), (1.0, 1e300, 1)])
    assert running_rates(tmp_path).rates == ()
