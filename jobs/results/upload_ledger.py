"""Which shards have been copied to `output.upload`: a line for each copy, in a file of each process.

A line names the commit that was copied. A shard that was written again since, or that is to go to another URL, is to be
copied again. A line that is lost costs one more copy.
"""

import contextlib
from collections.abc import Iterable

import msgspec

from run_batch.io.files import list_names, read_file
from run_batch.io.outputs.shards import ShardStore
from run_batch.io.transient import retry
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.results.journal_files import writer_name
from run_batch.jobs.results.shard_commits import Commit, read_commits

_FOLDER = "uploads"


class Upload(msgspec.Struct, frozen=True):
    """One copy of one shard.

    Attributes:
        attempt, time: of its commit.
        etag: what the object store calls the content.
        to: the URL of the folder, without secrets.
    """

    shard: int
    attempt: int
    time: float
    etag: str
    to: str


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Upload)


class UploadLedger:
    """The lines of one job for one URL; this process appends to a file of its own."""

    def __init__(self, store: ShardStore, url: str) -> None:
        """Read and write nothing yet.

        Args:
            url: of the folder, without secrets.
        """
        self._store, self._url = store, url
        self._folder = store.run_folder / _FOLDER
        self._file = self._folder / f"{writer_name()}.jsonl"

    def note(self, commit: Commit, etag: str) -> None:
        """Append a line: this commit has been copied.

        Raises:
            OSError: it cannot be written.
        """
        self._folder.mkdir(exist_ok=True)
        with open(self._file, "ab") as file:
            file.write(_encoder.encode(Upload(commit.shard, commit.attempt, commit.time, etag, self._url)) + b"\n")

    def missing(self, commits: Iterable[Commit]) -> list[int]:
        """The shards of these commits that have not been copied, ascending.

        Raises:
            OSError: the folder cannot be read.
        """
        done = {(line.shard, line.attempt, line.time) for line in self._lines() if line.to == self._url}
        return sorted(c.shard for c in commits if (c.shard, c.attempt, c.time) not in done)

    def missing_of(self, plan: Plan) -> list[int]:
        """The committed shards of a job that have not been copied, ascending.

        Raises:
            ShardError: a shard cannot be read.
            OSError: the folder cannot be read.
        """
        there = [shard for shard in self._store.committed() if shard < plan.num_shards]
        return self.missing(read_commits(self._store, plan, there).values())

    def _lines(self) -> list[Upload]:
        found = []
        for name in list_names(self._folder) if retry(self._folder.is_dir) else []:
            for line in read_file(self._folder / name).splitlines():
                with contextlib.suppress(msgspec.MsgspecError):  # torn by a crash
                    found.append(_decoder.decode(line))
        return found
