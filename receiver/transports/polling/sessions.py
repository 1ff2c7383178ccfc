"""The clients that poll with a session, by customer and by the client's own name for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receiver.access.identity import Identity
    from receiver.transports.polling.poll import Poll


class Sessions:
    """Each poll removes itself at its end, or once its client has been informed of the reason."""

    def __init__(self) -> None:
        self._polls: dict[tuple[str, str], Poll] = {}

    def __len__(self) -> int:
        return len(self._polls)

    def add(self, identity: Identity, poll: Poll) -> None:
        self._polls[identity.customer, poll.session] = poll

    def find(self, identity: Identity, session: str) -> Poll | None:
        return self._polls.get((identity.customer, session))

    def forget(self, poll: Poll) -> None:
        assert poll.identity is not None
        key = poll.identity.customer, poll.session
        if self._polls.get(key) is poll:
            del self._polls[key]
