"""A Hub that does not answer, or refuses: found out in seconds, told in a line, its cache used where it has a copy."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import huggingface_hub
import pytest
import servers

from run_batch.jobs.job.config import parse_config
from run_batch.jobs.job.errors import MayPassError
from run_batch.jobs.job.prepare import prepare
from run_batch.model.checkpoint import hub_access
from run_batch.model.checkpoint.hub import HubError, check_on_hub, snapshot_folder

COMMIT = "0" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; no process has asked the Hub yet."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for module, name in ((huggingface_hub.constants, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE")):
        monkeypatch.setattr(module, name, False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", False)
    monkeypatch.setattr(hub_access, "_ACCESS", hub_access._Access())
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    return tmp_path / "hub"


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Hub that takes connections and says nothing."""
    monkeypatch.setattr(hub_access, "_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        use(monkeypatch, endpoint)
        yield endpoint


def keep_copy(cache: Path) -> None:
    folder = cache / "models--org--name"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "snapshots" / COMMIT / "config.json").write_text("{}")


def test_a_hub_that_does_not_answer_is_given_up_in_seconds_and_said_what_to_do(cache: Path, deaf: str) -> None:
    then = time.monotonic()
    with pytest.raises(HubError) as raised:
        check_on_hub("org/name", "v1", "config.json")
    assert raised.value.passes and time.monotonic() - then < 5
    said = str(raised.value)
    assert f"the Hub ({deaf}) does not answer" in said and "no copy of org/name (revision v1)" in said
    assert "hf download" in said and "folder" in said
    assert os.environ["HF_HUB_OFFLINE"] == "1" and datasets.config.HF_HUB_OFFLINE
    then = time.monotonic()
    assert snapshot_folder("org/name", None, ("a", "b", "c", "d")) is None
    assert time.monotonic() - then < 1, "the Hub was asked for every file"


def test_a_copy_in_the_cache_is_used_where_the_hub_does_not_answer(cache: Path, deaf: str) -> None:
    keep_copy(cache)
    check_on_hub("org/name", None, "config.json")
    found = snapshot_folder("org/name", None, ("config.json",))
    assert found is not None and found.name == COMMIT
    assert "does not answer" in hub_access.hub_trouble("org/name")


def test_a_refused_connection_and_an_address_without_a_route_are_told(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        use(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
    with pytest.raises(HubError, match=r"refused.*no copy of org/name") as raised:
        check_on_hub("org/name", None, "config.json")
    assert raised.value.passes


def test_a_job_whose_model_or_data_set_cannot_be_had_names_the_key_and_may_be_run_again(
    cache: Path, deaf: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tables = {
        "input": {"path": "org/data", "image_column": ""},
        "model": {"path": "org/name"},
        "output": {"path": "out"},
    }
    config = parse_config(tables, tmp_path)
    with pytest.raises(MayPassError, match=r"^model.path org/name: the Hub .* does not answer"):
        prepare(config)
    keep_copy(cache)
    with pytest.raises(MayPassError, match=r"^input.path org/data: the Hub .* does not answer"):
        prepare(config)
    assert "model.path org/name" in caplog.text and "the copy in the cache on this machine is used" in caplog.text


def test_the_user_s_word_that_the_hub_is_not_to_be_asked_is_kept_to(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set, and there is no copy of org/name") as raised:
        check_on_hub("org/name", None, "config.json")
    assert not raised.value.passes


@pytest.mark.parametrize(
    ("status", "headers", "said", "passes"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, "there is no org/name on the Hub .* HF_TOKEN", False),
        (404, {"X-Error-Code": "RepoNotFound"}, "there is no org/name on the Hub", False),
        (404, {"X-Error-Code": "RevisionNotFound"}, "org/name has no revision v1", False),
        (403, {"X-Error-Code": "GatedRepo"}, "org/name is gated: accept its conditions", False),
        (503, {}, "does not answer .HTTP status 503.*no copy of org/name", True),
    ],
)
def test_what_a_hub_refuses_is_told_with_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], said: str, passes: bool
) -> None:
    monkeypatch.setattr(servers.Handler, "do_HEAD", servers.Handler.do_GET, raising=False)
    paths = (f"/org/name/resolve/{revision}/config.json" for revision in ("main", "v1"))
    with servers.Server(dict.fromkeys(paths, servers.status(status, **headers))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        use(monkeypatch, f"http://127.0.0.1:{server.server_address[1]}")
        then = time.monotonic()
        with pytest.raises(HubError, match=said) as raised:
            check_on_hub("org/name", "v1", "config.json")
        server.shutdown()
    assert raised.value.passes == passes and time.monotonic() - then < 8
