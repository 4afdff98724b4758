"""Fixtures of the tests of io/."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Interrupt = Callable[[str, Callable[[], None]], None]


@pytest.fixture
def just_before_creating(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Lets other processes act, once, between the decision to create a file of some name and its creation."""

    def interrupt(name: str, act: Callable[[], None]) -> None:
        create, acts = os.open, [act]

        def create_late(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
            if acts and flags & os.O_EXCL and Path(path).name == name:
                acts.pop()()
            return create(path, flags, *arguments, **named)

        monkeypatch.setattr(os, "open", create_late)

    return interrupt
