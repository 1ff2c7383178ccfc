"""One target under Atheris, in a process of its own: libFuzzer ends it. See __main__.py."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["receiver", "sender", "shared", "websockets", "starlette"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
