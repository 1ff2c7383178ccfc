"""Shared by all connections of one server: limits, proxies, and the function that may take one over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from shared.process.edge import Edge
from shared.process.turns import Turns

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from shared.process.forwarded import Proxies
    from shared.process.head import Head
    from shared.process.limits import Limits

logger = structlog.get_logger(__name__)


class Door:
    def __init__(
        self,
        limits: Limits,
        proxies: Proxies,
        refused: Callable[[str], None],
        *,
        take: Callable[[Head, Edge], bool] | None = None,
        root_path: str = "",
    ) -> None:
        """`take` is called with each head that wants to upgrade, and returns True if it took the connection
        over or answered. `refused` is called with the kind of each refusal. `root_path` is cut off if a
        target begins with it.
        """
        self.limits = limits
        self.proxies = proxies
        self.refused = refused
        self.take = take
        self.root_path = root_path.encode()
        self.leaving = False
        self.turns = Turns(limits.heads_a_turn, long_seconds=limits.long_turn_seconds)
        self.edges: set[Edge] = set()
        self.left_unanswered: Callable[[], None] = lambda: None  # called when a client has left so

    def protocol(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Edge:
        """Uvicorn's setting `http`: called for each connection."""
        return Edge(self, config, server_state, app_state)

    def tick(self, now: float) -> None:
        """`Limits.tick_seconds` have passed."""
        self.for_each(lambda edge: edge.tick(now))

    def for_each(self, act: Callable[[Edge], None]) -> None:
        """A fault of one connection ends that one alone: the others are still to be looked at."""
        for edge in list(self.edges):
            try:
                act(edge)
            except Exception:  # of one connection
                logger.exception("a connection failed at the edge and was ended")
                edge.abort()
