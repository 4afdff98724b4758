"""The log probability of an answer, as the report shows it: of which tokens it is known, and when it is not told."""

from pathlib import Path
from typing import Any

import committed_jobs
import pytest

from run_batch.jobs.job.rows import Generation, TokenLogprob
from run_batch.jobs.results.shard_commits import read_commits
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report import write_report
from run_batch.jobs.watch.report_numbers import Numbers
from run_batch.jobs.watch.report_sample import sample_rows

# By token: its id and its log probability.
TOKENS = {"yes": (5, -0.1), "no": (6, -3.0), " it": (7, -0.2), "it": (8, -1.0), " is": (9, -0.3), "</s>": (2, -0.01)}
TOKENS |= {"y": (10, -2.0), "es": (11, -1.5), "\n": (12, -4.0), "\ufffd": (13, -0.5)}


def candidate(token: str, rank: int) -> TokenLogprob:
    token_id, logprob = TOKENS[token]
    return TokenLogprob(token_id, token, logprob, rank)


def generation(row: int, text: str, *positions: str, ids: tuple[int, ...] | None = None) -> Generation:
    """A row of one sequence; of each position, the candidates with a `|` between them, by rank."""
    candidates = tuple(tuple(map(candidate, of.split("|"), range(1, 9))) for of in positions)
    token_ids = None if ids is None else (ids,)
    return Generation(row, (text,), "stop", 3, len(positions), logprobs=(candidates,), token_ids=token_ids)


def logprobs(folder: Path, *generations: Generation, **tables: Any) -> list[tuple[int, float] | None]:
    """What is told of each row: how many tokens, and the sum of their log probabilities."""
    rows = {"prompt": ["p"] * len(generations)}
    job = committed_jobs.prepared(folder, rows, sampling={"logprobs": 2}, **tables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committed_jobs, "result", lambda row: generations[row])
        committed_jobs.commit(job, range(len(generations)))
    store, plan = job.store, job.plan
    sample = sample_rows(store, plan, read_commits(store, plan, store.committed()), 100, 0, Numbers())
    assert len(sample.rows) == len(generations)
    found = [row.logprob for row in sample.rows]
    return [None if known is None else (known.tokens, pytest.approx(known.total)) for known in found]


def test_the_candidates_that_make_the_text_are_its_tokens_without_what_ended_it(tmp_path: Path) -> None:
    told = logprobs(
        tmp_path,
        generation(0, "yes", "yes|no", "</s>|yes"),
        generation(1, "no", "yes|no", "</s>|yes"),
        generation(2, "yes it is", "yes|no", " it|</s>", " is|it"),
        generation(3, "yesit is", "no|yes", "it", "</s>| is", "</s>"),
    )
    assert told == [(1, -0.1), (1, -3.0), (3, -0.6), (3, -1.4)]


def test_what_can_be_made_in_several_ways_or_in_none_is_not_told(tmp_path: Path) -> None:
    told = logprobs(
        tmp_path,
        generation(0, "yes", "yes|y", "es|</s>"),
        generation(1, "yes", "yes|\n", "yes|</s>"),
        generation(2, "yes it", "yes", " it|it"),
        generation(3, "maybe", "yes|no"),
        generation(4, "\u00e9", "\ufffd", "\ufffd"),
        generation(5, "", "</s>|yes"),
    )
    assert told == [None, None, None, None, (2, -1.0), None], "of single candidates, all tokens"


def test_recorded_token_ids_say_which_tokens_were_generated(tmp_path: Path) -> None:
    told = logprobs(
        tmp_path,
        generation(0, "yes", "yes|y", "es|</s>", ids=(10, 11)),
        generation(1, "yes it", "yes", " it|it", "</s>", ids=(5, 8, 2)),
        output={"extra": ["token_ids"]},
    )
    assert told == [(2, -3.5), (2, -1.1)]


def test_of_several_sequences_the_first_one_is_told_as_its_text_is(tmp_path: Path) -> None:
    yes, no = (((TokenLogprob(TOKENS[text][0], text, TOKENS[text][1], 1),),) for text in ("yes", "no"))
    row = Generation(0, ("no", "yes"), "stop", 3, 2, logprobs=(no, yes), other_finish_reasons=("stop",))
    job = committed_jobs.prepared(tmp_path, {"prompt": ["p"]}, sampling={"logprobs": 0, "n": 2, "temperature": 1.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committed_jobs, "result", lambda _: row)
        committed_jobs.commit(job, range(1))
    page = write_report(JobFolder.at(job.store.folder))[0].read_text()
    assert "-3.000 a token, -3.000 in all, of 1 tokens" in page and ' data-logprob="-3"' in page
    assert "most certain answers first" in page


def test_a_job_without_log_probabilities_cannot_be_sorted_by_them(tmp_path: Path) -> None:
    job = committed_jobs.prepared(tmp_path, {"prompt": list("ab")})
    committed_jobs.commit(job, range(2))
    page = write_report(JobFolder.at(job.store.folder))[0].read_text()
    assert "certain answers first" not in page and "longest answers first" in page and "<dt>logprob" not in page
