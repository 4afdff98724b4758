"""What a terminal and a file show until the model is loaded."""

import io
import os
import pty
import re
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import jobs
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.shares import WHOLE_JOB
from run_batch.jobs.watch import loading_line as watched
from run_batch.jobs.watch import run_messages
from run_batch.jobs.watch.loading_line import loading_line
from run_batch.model.engine_phases import Phase, begin_phase


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_TICK_SECONDS", 0.01)


def test_seconds_are_counted_while_the_model_loads_and_the_line_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    shown = b""
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with loading_line(quiet=False):
            for what in ("loading the model", Phase.COMPILING, Phase.CAPTURING):
                if isinstance(what, Phase):
                    begin_phase(what)
                while not re.search(rf"\r{what} … \d+ s".encode(), shown):
                    shown += os.read(ours, 1000)
        print("next", file=terminal, flush=True)
        while b"next" not in shown:
            shown += os.read(ours, 1000)
    os.close(ours)
    line, _, rest = shown.rpartition(b" s")
    assert b"\n" not in line and rest.endswith(b"next\r\n") and rest[:-6].strip() == b"", shown


def test_a_file_has_a_line_for_each_phase_and_no_carriage_return(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with loading_line(quiet=False, what="loading the model"):
        for what in ("loading the model", Phase.COMPILING):
            if isinstance(what, Phase):
                begin_phase(what)
            while f"{what} ...\n" not in said.getvalue():
                time.sleep(0.005)
    assert said.getvalue() == "loading the model ...\ncompiling the model ...\n"


def test_nothing_is_told_to_who_wants_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with loading_line(quiet=True):
        begin_phase(Phase.COMPILING)
        time.sleep(0.05)
    assert said.getvalue() == ""


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (
            60,
            ["loading the model model ..., 2 worker processes", "engine: dtype = float32, max_model_len = 256, 3 more"],
        ),
        (
            80,
            [
                "loading the model model ..., 2 worker processes",
                "engine: dtype = float32, max_model_len = 256, max_num_seqs = 32, 2 more",
            ],
        ),
        (
            180,
            [
                "loading the model model (dtype = float32, max_model_len = 256, max_num_seqs = 32, "
                "enforce_eager = true, kv_cache_memory_bytes = 134217728) ..., 2 worker processes"
            ],
        ),
    ],
)
def test_the_engine_settings_are_shown_at_every_width(
    width: int,
    shown: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run_messages, "_columns", lambda: width)
    config = load_config(jobs.write_job(tmp_path, jobs.rows(2), model={"path": "model"}, preprocess={"workers": 2}))
    job: Any = SimpleNamespace(config=config, share=WHOLE_JOB, shards=range(1), store=SimpleNamespace(folder="out"))
    committed: Any = SimpleNamespace(rows=2, rows_done=0)
    run_messages.RunMessages(quiet=False).work(job, committed)
    assert capsys.readouterr().err.splitlines()[1:] == shown
