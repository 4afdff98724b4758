"""The folder of the files by which vLLM's processes find each other: removed when the process that started them ends.

vLLM leaves them in the temporary folder, sockets and `vllm_dist_*` files, a few for each engine. Here they are in a
folder of the process, whose name says whose it is: what a process that was killed has left, the next one on the same
machine removes, and no other.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from run_batch.io.coordination.process_identity import Holder, has_ended, this_process
from run_batch.model.plugin import ENGINE_FOLDER_VARIABLE

_NAME = re.compile(r"run-batch-([0-9a-f]{8})-(\d+)-(\d+)")
# Names of sockets have 107 bytes at most; those of vLLM's are 36 long.
_LONGEST = 107 - len("/") - 36


def use_engine_folder() -> None:
    """Make the folder of this process, for vLLM in it and in all that it starts; remove those of dead processes.

    Where none can be made, or its path is too long for sockets, vLLM goes by the temporary folder.
    """
    own, before = this_process(), os.environ.get(ENGINE_FOLDER_VARIABLE)
    if before and _is_of(own, before):
        return
    base = Path(before or tempfile.gettempdir())
    _remove_dead(base, own)
    folder = base / f"run-batch-{_machine(own)}-{own.pid}-{own.started}"
    if len(os.fsencode(folder)) > _LONGEST:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ[ENGINE_FOLDER_VARIABLE] = str(folder)


def remove_engine_folder() -> None:
    """Remove the folder of this process, if it has one: it is about to end, and what it has started has ended."""
    folder = os.environ.get(ENGINE_FOLDER_VARIABLE, "")
    if _is_of(this_process(), folder):
        shutil.rmtree(folder, ignore_errors=True)


def _remove_dead(base: Path, own: Holder) -> None:
    """Remove the folders of this user's processes of this machine that have ended."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(base):
            match = _NAME.fullmatch(entry.name)
            if match is None or match[1] != _machine(own):
                continue
            process = Holder(own.host, own.machine, int(match[2]), match[3], 0.0)
            is_own = entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            if is_own and has_ended(process):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_of(holder: Holder, folder: str) -> bool:
    match = _NAME.fullmatch(os.path.basename(folder))
    return match is not None and match.groups() == (_machine(holder), str(holder.pid), holder.started)


def _machine(holder: Holder) -> str:
    """A machine, since its last boot, in few letters."""
    return hashlib.sha256(holder.machine.encode()).hexdigest()[:8]
