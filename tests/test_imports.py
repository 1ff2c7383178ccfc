"""The direction of imports: sender and receiver never import each other, and shared imports neither.

And nothing happens at import: no connection, no task, no reading of the environment.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.settings import PREFIX
from tests.processes import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parent.parent
FORBIDDEN = {
    "sender": {"receiver", "tests", "bench"},
    "receiver": {"sender", "tests", "bench"},
    "shared": {"sender", "receiver", "tests", "bench"},
}
FILES = [path for package in FORBIDDEN for path in sorted((REPOSITORY / package).rglob("*.py"))]
# Alembic runs its migrations as files; they are not modules of ours.
MODULES = [path for path in FILES if path.stem != "__main__" and "migrations" not in path.parts]

# Opening a socket, starting a thread or a process, and reading one of our settings all raise.
_WATCHED_IMPORT = f"""
import importlib, os, sys, threading
def refuse(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.fork",
                 "os.posix_spawn", "sqlite3.connect"):
        raise RuntimeError(f"at import: {{event}} {{arguments}}")
def refuse_start(thread):
    raise RuntimeError(f"at import: {{thread}}")
threading.Thread.start = refuse_start
class Watched(type(os.environ)):
    def __getitem__(self, name):
        if name.startswith({PREFIX!r}):
            raise RuntimeError(f"at import: reads {{name}}")
        return super().__getitem__(name)
os.environ.__class__ = Watched
sys.addaudithook(refuse)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_packages(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    files = [path for path in FILES if path.relative_to(REPOSITORY).parts[0] == package]
    assert files
    for path in files:
        # Commands stand above both services.
        allowed = {"sender", "receiver"} if "commands" in path.parts else set()
        assert not imported_packages(path) & FORBIDDEN[package] - allowed, path


def test_commands_are_used_by_no_service() -> None:
    for path in FILES:
        if "commands" not in path.parts:
            assert "shared.commands" not in path.read_text(encoding="utf-8"), path


def imported_modules(path: Path, modules: set[str]) -> set[str]:
    """Our modules that a file imports at run time, anywhere in it; imports for types do not count."""
    found: set[str] = set()
    for node in _walk_what_runs(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= full & modules or {str(node.module)}
    return found & modules


def _walk_what_runs(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from _walk_what_runs(child)


def test_no_import_comes_back_to_its_module() -> None:
    names = {module_name(path): path for path in FILES}
    imports = {name: imported_modules(path, set(names)) - {name} for name, path in names.items()}
    graphlib.TopologicalSorter(imports).prepare()  # raises with the circle


@pytest.mark.long
def test_nothing_connects_or_starts_or_reads_settings_at_import() -> None:
    command = [sys.executable, "-c", _WATCHED_IMPORT, *map(module_name, MODULES)]
    done = subprocess.run(command, cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_watch_sees_what_it_must() -> None:
    for act in (
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import os; os.environ.get('ORDERBELL_REDIS_URL')",
        "import os; os.getenv('ORDERBELL_REDIS_URL')",
        "import threading; threading.Thread(target=print).start()",
        "import subprocess; subprocess.run(['true'])",
    ):
        done = subprocess.run(
            [sys.executable, "-c", f"{_WATCHED_IMPORT}\n{act}"],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
        )
        assert "at import: " in done.stderr, act


def test_there_is_something_to_hold() -> None:
    packages = {path.relative_to(REPOSITORY).parts[0] for path in FILES}
    assert packages == set(FORBIDDEN)
