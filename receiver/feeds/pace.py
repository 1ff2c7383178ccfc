"""How often and how long, for all that keeps feeds in place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    check_seconds: float = 3.0  # between two looks whether something was missed
    checks_per_second: int = 1_000  # heads; with more than 3,000 feeds a round takes longer, its cost stays
    pull_seconds: float = 1.0  # between two questions to the sender while Redis is away
    newest_seconds: float = 1.0  # for the sender to report what is newest: the regular check waits for it
    breath_seconds: float = 0.01  # between two pipelines of a check: no event waits behind a whole round
    establish_seconds: float = 10.0  # for a channel's first subscription, or its place from the sender
    linger_seconds: float = 20.0  # that a feed stays without members: above most clients' time between polls
    # Under load a request costs as much as some hundred questions in one, so they wait for more, for a
    # fraction of what the crowd takes anyway. An HTTP request costs ten times what a pipeline does.
    gather_seconds: float = 0.005
    gather_history_seconds: float = 0.05
    again_seconds: float = 0.05  # before an answer of the history that had no room is asked for again
