"""What the tests of the model side share."""

import pytest

from run_batch.model import declaration


@pytest.fixture
def declared_for_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever registers with vLLM in this process, such as the tests with an engine, registers all that is declared.
    monkeypatch.setattr(declaration, "_DECLARATIONS", dict(declaration._DECLARATIONS))
