"""The local directory, `.orderbell/`: the files that `orderbell up` keeps from one run to the next.

`api-key`, `jwt-secret` and `live-key` are made once; `environment` has all settings of the current run, for
`orderbell token`, `watch` and `doctor`, and for a gateway that you start beside it: `set -a; .
.orderbell/environment; python -m receiver --port 8093`. All are readable by their owner alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import OperatorError
from shared.settings import PREFIX, S, load

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping, Sequence

DEFAULT = Path(".orderbell")
API_KEY = "api-key"
JWT_SECRET = "jwt-secret"
LIVE_KEY = "live-key"


class Damaged(OperatorError):
    """A file of the directory is not as we write it."""


class InUse(OperatorError):
    """Another run uses the directory."""


class LocalDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Reserve it for one run: two relays, each with its own Redis, would each publish half of the events.

        Raises `InUse`, or `OSError` if the directory can't be made.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InUse(f"another `orderbell up` runs in {self.path}") from None
            yield

    def secret(self, name: str) -> str:
        """The secret of this name, created at the first call."""
        path = self.path / name
        if not path.exists():
            _write(path, secrets.token_hex(32) + "\n")
        return path.read_text(encoding="utf-8").strip()

    @contextlib.contextmanager
    def publish(self, environment: MutableMapping[str, str], gateways: Sequence[str] = ()) -> Iterator[None]:
        """Keep the settings and the gateways' URLs in the directory during this run."""
        ours = {name: value for name, value in sorted(environment.items()) if name.startswith(PREFIX)}
        path = self.path / "environment"
        _write(path, "".join(f"{name}={shlex.quote(value)}\n" for name, value in ours.items()))
        _write(self.path / "gateways", "".join(f"{url}\n" for url in gateways))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            (self.path / "gateways").unlink(missing_ok=True)

    def gateways(self) -> list[str]:
        """The gateways' URLs of the current run."""
        with contextlib.suppress(FileNotFoundError):
            return (self.path / "gateways").read_text(encoding="utf-8").split()
        return []

    def adopt(self, environment: MutableMapping[str, str]) -> None:
        """Take the settings of the current run, or at least its secrets, except what is already set."""
        for name, value in self._settings().items():
            # Tokens are verified in only one way, which a given setting decides.
            others = ("JWKS_URL", "JWT_SECRETS") if name == PREFIX + "JWT_SECRET" else ()
            if not any(is_set(environment, one) for one in (name, *(PREFIX + other for other in others))):
                environment[name] = value

    def load(self, settings_class: type[S]) -> S:
        """A command's settings, with those of the current run; exits with 2 as `shared.settings.load`."""
        self.adopt(os.environ)
        if not any(name.startswith(PREFIX) for name in os.environ):
            print(f"orderbell: no `orderbell up` has run in {self.path}; see --data", file=sys.stderr)
        return load(settings_class)

    def _settings(self) -> dict[str, str]:
        path = self.path / "environment"
        try:
            return dict(word.split("=", 1) for word in shlex.split(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            pass
        except ValueError:  # another encoding, an open quote, no `=`
            raise Damaged(f"{path} is damaged; delete it, and start `orderbell up` again") from None
        names = {PREFIX + "API_KEYS": API_KEY, PREFIX + "JWT_SECRET": JWT_SECRET}
        return {name: self.secret(file) for name, file in names.items() if (self.path / file).exists()}


def is_set(environment: MutableMapping[str, str], name: str) -> bool:
    """Whether a setting is given, itself or as a file."""
    return bool(environment.get(name) or environment.get(f"{name}_FILE"))


def given(environment: MutableMapping[str, str], name: str) -> str:
    """A setting's value, from its variable or its file; empty if neither can be read."""
    path = environment.get(f"{name}_FILE")
    if environment.get(name) or not path:
        return environment.get(name, "")
    with contextlib.suppress(OSError, ValueError):
        return Path(path).read_text(encoding="utf-8-sig").strip()
    return ""


def _write(path: Path, text: str) -> None:
    # Others can never read it, not even while it is written, and it is never half written.
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)
