"""Settings of a test, and the faults that they have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shared.settings import PREFIX, Settings, load

if TYPE_CHECKING:
    from collections.abc import Callable

    Set = Callable[..., None]
    Faults = Callable[..., list[str]]


@pytest.fixture(name="set")
def set_environment(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Make these the only settings; names without prefix, in lower case."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)

    def set(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(PREFIX + name.upper(), value)

    return set


@pytest.fixture
def faults(capsys: pytest.CaptureFixture[str]) -> Faults:
    """Load faulty settings; returns the lines that report the faults."""

    def faults(settings_class: type[Settings], host: str | None = None) -> list[str]:
        with pytest.raises(SystemExit) as ended:
            load(settings_class, host=host)
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert not printed.out
        return printed.err.splitlines()

    return faults
