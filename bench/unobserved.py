"""A gateway without what it observes of itself: `python -m bench.unobserved --port 8091`.

For comparison only (bench/observing.py). Left out are the ages of events, their ways in the log, the count of
deliveries, what is remembered of connections that ended, and the line about each that opens. Metrics of
other kinds stay: they are older than these and cheap.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType


class Cut(NamedTuple):
    """Lines of a module, from the first that begins with one text until one that begins with the other."""

    module: str
    first: str
    until: str


CUTS = (
    Cut(
        "receiver.subscription.subscription", "        if (now := self._loop.time())", "        if self._del"
    ),
    Cut("receiver.feeds.burst", "        delivered[connections[0]", "        size = "),
    Cut("receiver.feeds.burst", "        delivered[connection.transport]", "        try:"),
    Cut("receiver.feeds.feed", "        if ways.noted and self.live", "    def reset("),
    Cut(
        "receiver.connections.life", "        if not connection.passing:", "        first = connection.feeds"
    ),
    Cut("receiver.connections.life", "        self.register.note_ending(", "        metrics.connections_of("),
)


class CutFailed(Exception):
    """The module has changed: the lines to be left out were not found."""


def cut(source: str, first: str, until: str) -> str:
    lines = source.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if line.startswith(first)]
    if len(begins) != 1:
        raise CutFailed(f"{len(begins)} lines begin with {first!r}")
    (begin,) = begins
    ends = [number for number in range(begin + 1, len(lines)) if lines[number].startswith(until)]
    if not ends:
        raise CutFailed(f"no line after it begins with {until!r}")
    return "".join(lines[:begin] + lines[ends[0] :])


def without(module: str, source: str) -> str:
    """The source of a module without what is to be left out of it."""
    for one in CUTS:
        if one.module == module:
            source = cut(source, one.first, one.until)
    return source


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if all(one.module != name for one in CUTS):
            return None
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname)
        assert source is not None
        return compile(without(fullname, source), self.path, "exec")


if __name__ == "__main__":
    sys.meta_path.insert(0, _Finder())
    from receiver.__main__ import main

    sys.exit(main())
