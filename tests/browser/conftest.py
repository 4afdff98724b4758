"""The browser of the tests; they are skipped where there is none."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def window() -> Iterator[Any]:
    pytest.importorskip("selenium", reason="selenium is not installed; `make browser-test` installs it")
    from chromium import chromium, is_installed

    if not is_installed():
        pytest.skip("chromium and chromium-driver are not installed; `make browser-test` installs them, as root")
    with chromium() as opened:
        yield opened


@pytest.fixture
def quiet(window: Any) -> Iterator[Any]:
    """The browser, in a test in which its console says nothing."""
    window.complaints()
    yield window
    assert window.complaints() == []
