"""The folder of the files by which vLLM's processes find each other, and what becomes of those of dead processes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from run_batch.jobs.engine.engine_folder import remove_engine_folder, use_engine_folder
from run_batch.model import plugin

NAME = plugin.ENGINE_FOLDER_VARIABLE
# A process that makes its folder, and is killed or waits.
CODE = """
import os, sys
from run_batch.jobs.engine.engine_folder import use_engine_folder
use_engine_folder()
print(os.environ["VLLM_RPC_BASE_PATH"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder with a short path, as sockets need."""
    folder = tempfile.mkdtemp(prefix="rb")
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv(NAME, "")
    return Path(folder)


def other_process() -> tuple["subprocess.Popen[str]", Path]:
    process = subprocess.Popen([sys.executable, "-c", CODE], stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_has_left_the_next_one_removes_and_nothing_else(temporary: Path) -> None:
    killed, dead = other_process()
    (dead / "vllm_dist_1").touch()
    killed.kill()
    killed.communicate()
    running, live = other_process()
    assert not dead.exists() and live.is_dir() and live.stat().st_mode & 0o777 == 0o700
    others = [temporary / "run-batch-00000000-1-1", temporary / "vllm_dist_of_somebody", temporary / "run-batch-x"]
    for other in others:
        other.mkdir()
    use_engine_folder()
    own = Path(os.environ[NAME])
    assert live.is_dir() and own.is_dir() and all(other.is_dir() for other in others)
    running.communicate()
    use_engine_folder()
    assert Path(os.environ[NAME]) == own and live.is_dir(), "once in a process"
    remove_engine_folder()
    assert sorted(temporary.iterdir()) == sorted([live, *others])


def test_vllm_makes_its_files_in_the_folder_of_the_process(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.utils import network_utils
    from vllm.v1.executor import multiproc_executor, uniproc_executor

    modules = (network_utils, multiproc_executor, uniproc_executor)
    for module in modules:
        monkeypatch.setattr(module, "get_file_store_init_method", module.get_file_store_init_method)  # put back
    monkeypatch.setenv(plugin.PLUGINS_VARIABLE, json.dumps({"modules": [], "folder": str(temporary)}))
    use_engine_folder()
    plugin.register()
    for module in modules:
        assert module.get_file_store_init_method().startswith(f"file://{os.environ[NAME]}/vllm_dist_")
    assert network_utils.get_open_zmq_ipc_path().startswith(f"ipc://{os.environ[NAME]}/")
    remove_engine_folder()


def test_a_temporary_folder_with_a_long_path_is_left_to_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    use_engine_folder()
    assert not os.environ[NAME] and not list(long.iterdir())
