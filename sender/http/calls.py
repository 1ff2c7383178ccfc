"""A call of the sender's API, as its route and its description are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from sender.http.api import Api

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    name: str  # the operation's, in the document
    endpoint: Callable[[Api], Callable[[Request], Awaitable[Response]]]
    summary: str
    answers: dict[int, Json]
    refusals: tuple[int, ...] = ()
    parameters: tuple[Json, ...] = ()
    body: Json | None = None
    keyed: bool = True  # whether it needs an API key
