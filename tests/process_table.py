"""The processes of this machine, from /proc, or from `ps`, which slim images lack and macOS has."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    pid: int
    parent: int
    state: str  # one letter, as `ps` has it
    command: str

    @property
    def running(self) -> bool:
        return self.state != "Z"  # a zombie


def rows() -> list[Row]:
    if Path("/proc/self/stat").exists():
        found = [_row(directory) for directory in Path("/proc").iterdir() if directory.name.isdigit()]
        return [row for row in found if row]
    command = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split(None, 3) for line in listed.stdout.splitlines()]
    return [Row(int(pid), int(parent), stat[0], args) for pid, parent, stat, args in lines]


def running(pid: int) -> bool:
    return any(row.pid == pid and row.running for row in rows())


def stopped(pid: int) -> bool:
    """Whether SIGSTOP has taken effect."""
    return any(row.pid == pid and row.state == "T" for row in rows())


def descendants(pid: int) -> dict[int, str]:
    """Ids and command lines of a process's children, theirs, and so on."""
    table = rows()
    found: dict[int, str] = {}
    level = {pid}
    while level:
        new = {row.pid: row.command for row in table if row.parent in level and row.running}
        found |= new
        level = set(new)
    return found


def _row(directory: Path) -> Row | None:
    try:
        # Between the parentheses is the name, which may hold anything.
        state, parent = (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        command = (
            (directory / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        )
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended meanwhile
    return Row(int(directory.name), int(parent), state, command)
