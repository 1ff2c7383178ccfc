"""The start of every process of Orderbell: its packages are its own.

`shared`, `sender` and `receiver` are names that others use too: a project from whose directory
`python -m receiver` is run may have its own `shared`, and so may a virtual environment. Importing this module
makes these names ours, wherever Python would have looked first. It must come before all others of ours, which
is why importing it does something, and it imports nothing of ours.

A package that was installed over ours can't be avoided: that is reported in one line, with exit code 2.

    python orderbell_start.py MODULE ARGUMENTS    as `python -m MODULE ARGUMENTS`; for processes that we start
"""

from __future__ import annotations

import runpy
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

ROOT = Path(__file__).resolve().parent
PACKAGES = ("receiver", "sender", "shared")


class _Ours(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        ours = path is None and fullname in PACKAGES
        return PathFinder.find_spec(fullname, [str(ROOT)]) if ours else None


def command(module: str) -> list[str]:
    """The command that runs one of our modules in a process, whatever its directory contains."""
    return [sys.executable, "-P", str(ROOT / "orderbell_start.py"), module]


def _take_our_names() -> None:
    for name in PACKAGES:
        imported = sys.modules.get(name)
        where = Path(getattr(imported, "__file__", None) or ROOT / name / "__init__.py")
        # Ours have our name in them. `resolve`, since an installation may be reached by links.
        if where.resolve().parent != ROOT / name or "Orderbell" not in where.read_text(encoding="utf-8"):
            print(
                f"orderbell: {where.parent} is another package's, under our name; install Orderbell into"
                " a separate environment: pipx install, uv tool install, or its image",
                file=sys.stderr,
            )
            raise SystemExit(2)
    sys.meta_path.insert(0, _Ours())


def main() -> None:
    """The console script `orderbell`."""
    from shared.commands.cli import main

    main(prog_name="orderbell")


_take_our_names()

if __name__ == "__main__":
    sys.modules["orderbell_start"] = sys.modules[__name__]
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
