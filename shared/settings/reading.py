"""Reading a process's settings, once, at its start: every fault at once, a line each."""

from __future__ import annotations

import os
import sys
from typing import Any, TypeVar

from pydantic import ValidationError

from shared.errors import OperatorError
from shared.loopback import is_loopback
from shared.settings.environment import PREFIX, FromEnvironment, Unusable
from shared.settings.names import unknown_names
from shared.settings.receiver import TOGETHER, ReceiverSettings, faults_together

_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})  # what pydantic accepts for true
S = TypeVar("S", bound=FromEnvironment)


class InvalidSettings(OperatorError):
    """Every fault of this process's settings, a line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def load(settings_class: type[S], *, host: str | None = None, port: int = 0) -> S:
    """The settings of this process. Faults go to standard error, a line each, and the process exits with 2.

    With `host`, development mode is held to loopback.
    """
    try:
        return read(settings_class, host=host, port=port)
    except InvalidSettings as error:
        for fault in error.faults:
            print(f"orderbell: {fault}", file=sys.stderr)
        raise SystemExit(2) from None


def read(settings_class: type[S], *, host: str | None = None, port: int = 0) -> S:
    """`load` for callers that go on after faults. Raises `InvalidSettings`."""
    faults = unknown_names(os.environ)
    if not 0 <= port <= 65535:
        faults.insert(0, f"--port {port}: a port is a number up to 65535")
    settings = None
    try:
        settings = settings_class()
    except ValidationError as error:
        faults += [_fault_line(fault) for fault in error.errors(include_url=False)]
        # pydantic checks the whole only where each part is valid.
        if issubclass(settings_class, ReceiverSettings):
            faults += faults_together({name for name in TOGETHER if _is_given(name)})
    if host is not None and not is_loopback(host) and _is_given("development"):
        faults.append(
            f"{PREFIX}DEVELOPMENT: anybody may sign in, so it may listen on loopback only, not on {host}"
        )
    if settings is None or faults:
        raise InvalidSettings(list(dict.fromkeys(faults)))
    return settings


def file_of(field: str) -> str | None:
    """The file that holds a setting; None where a variable holds it, which counts first, or nothing does."""
    name = PREFIX + field.upper()
    return None if os.environ.get(name) else os.environ.get(f"{name}_FILE") or None


def _is_given(field: str) -> bool:
    name = PREFIX + field.upper()
    if field == "development":
        return os.environ.get(name, "").strip().lower() in _TRUE
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def _fault_line(fault: Any) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    if not fault["loc"]:
        return str(message)
    field = str(fault["loc"][0])
    if field == "api_keys" and _is_given("api_key") and not _is_given(field):
        field = "api_key"
    name = PREFIX + field.upper()
    if isinstance(fault["input"], Unusable):
        unusable = fault["input"]
        return f"{name}{'_FILE' if unusable.file else ''}: {unusable.why}"
    return f"{name}: missing" if fault["type"] == "missing" else f"{name}: {message}"
