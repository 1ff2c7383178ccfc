"""JSON from outside: RFC 8259, UTF-8, no NaN, bounded depth, and no name twice in one object.

RFC 8259, 4 leaves open what a repeated name means, and parsers differ: one checks the first `order_id`, the
next one uses the last. So it is refused, at every depth.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from shared.errors import CallerError

MAX_DEPTH = 32  # of nested arrays and objects

_NESTING = (dict, list)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')


class InvalidJson(CallerError, ValueError):
    """JSON that is not accepted; the message gives the reason."""


class NotJson(InvalidJson):
    """Bytes that are something else."""


def parse_json(body: bytes) -> Any:
    """Raises `InvalidJson`."""
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise InvalidJson(f"nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeDecodeError:
        raise NotJson("not UTF-8") from None
    except msgspec.DecodeError as error:
        raise NotJson(f"not JSON: {error}") from None
    members = _count_members(value)
    # An object has a colon for each member. Only if texts hold colons, too, are the texts examined.
    if body.count(b":") != members and _STRING.sub(b"", body).count(b":") != members:
        raise InvalidJson(f"an object has the name {_repeated(body)!r} twice")
    return value


def canonical_json(value: object) -> bytes:
    """The same bytes for the same JSON, whatever its spacing, escapes and order of members."""
    return msgspec.json.encode(value, order="sorted")


def _count_members(value: object) -> int:
    """The members of all objects together. Raises `InvalidJson` for what is nested too deep."""
    count = 0
    level: list[Any] = [value] if isinstance(value, _NESTING) else []
    for _ in range(MAX_DEPTH):
        count += sum(len(parent) for parent in level if isinstance(parent, dict))
        parents = (parent.values() if isinstance(parent, dict) else parent for parent in level)
        level = [child for children in parents for child in children if isinstance(child, _NESTING)]
        if not level:
            return count
    raise InvalidJson(f"nested deeper than {MAX_DEPTH} levels")


def _repeated(body: bytes) -> str:
    """The first name that an object has twice."""
    found = ""

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        names = [name for name, _ in pairs]
        found = found or next((name for at, name in enumerate(names) if name in names[:at]), "")
        return {}

    json.loads(body, object_pairs_hook=note)
    return found[:80]
