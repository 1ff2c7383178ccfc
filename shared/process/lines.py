"""Lines to a file that may be slow or stuck: logging never waits.

A pipe that is not read is full after 64 KiB, and the next write to it waits, with the whole event loop. So
lines are queued, in bounds, and a thread of our own writes them. Beyond the bounds they are dropped, and the
next line that gets through reports how many.

Why not the standard library's: a full QueueHandler prints a traceback to the same pipe for each drop, and
QueueListener.stop waits for the queue, so a process with a full pipe could not even end. Why not
O_NONBLOCK: it would apply to every process that shares the file, the shell included.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LINES = 10_000
MAX_BYTES = 4 * 2**20
END_SECONDS = 1.0  # for the last lines, when the process ends
_PIPE_BUF = 4096  # up to this many bytes, Linux writes to a pipe without mixing in what others write


class Lines:
    def __init__(
        self, file: int, note: Callable[[int], str], *, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES
    ) -> None:
        """`note` makes the line that reports how many were dropped."""
        self._file = file
        self._note = note
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0  # that wait; both threads change it, so only under the lock
        self._unsaid = 0  # dropped, and not yet reported
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._ending = False
        self.dropped: Callable[[int], None] = lambda count: None  # called by the thread with each report
        self._thread = threading.Thread(target=self._write_all, name="log lines", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue a line, without its end. Never waits for the file."""
        data = line.encode(errors="backslashreplace") + b"\n"
        with self._lock:
            if len(self._lines) >= self._max_lines or self._bytes + len(data) > self._max_bytes:
                self._unsaid += 1
                return
            self._lines.append(data)
            self._bytes += len(data)
        if not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Give waiting lines `END_SECONDS`, then return in any case."""
        self._ending = True
        self._some.set()
        self._thread.join(END_SECONDS)

    def _write_all(self) -> None:
        while not (self._ending and not self._lines and not self._unsaid):
            self._some.wait()
            self._some.clear()
            while batch := self._take():
                self._write(batch)

    def _take(self) -> bytes:
        """As many whole lines as fit into one write that other processes' lines can't be mixed into."""
        with self._lock:
            taken: list[bytes] = []
            size = 0
            while self._lines and (not taken or size + len(self._lines[0]) <= _PIPE_BUF):
                size += len(self._lines[0])
                taken.append(self._lines.popleft())
            self._bytes -= size
            unsaid = 0
            if not self._lines:  # the note comes after all kept lines
                unsaid, self._unsaid = self._unsaid, 0
        if unsaid:
            self.dropped(unsaid)
            taken.append(self._note(unsaid).encode() + b"\n")
        return b"".join(taken)

    def _write(self, data: bytes) -> None:
        try:
            while data:
                try:
                    data = data[os.write(self._file, data) :]
                except BlockingIOError:  # another process that shares the file made it non-blocking
                    select.select([], [self._file], [])
        except OSError:
            # The file is closed, or its disk is full. There is nowhere to report that, so these lines are
            # only counted.
            self.dropped(data.count(b"\n"))
