"""How often and how long, for everything that keeps feeds up to date."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    check_seconds: float = 3.0  # between two checks for missed events
    checks_per_second: int = 1_000  # heads; with more than 3,000 feeds a round takes longer
    pull_seconds: float = 1.0  # between two questions to the sender while Redis is away
    newest_seconds: float = 1.0  # for the sender to report the newest event: the regular check waits for it
    breath_seconds: float = 0.01  # between two pipelines of a check: events need not wait for the whole
    establish_seconds: float = 10.0  # for a channel's first subscription, or its place from the sender
    linger_seconds: float = 20.0  # that an empty feed stays: longer than most clients pause between polls
    # Under load a request costs as much as some hundred questions, so a batch waits to fill, for a fraction
    # of the time that the crowd takes anyway. An HTTP request costs ten times as much as a pipeline.
    gather_seconds: float = 0.005
    gather_history_seconds: float = 0.05
    again_seconds: float = 0.05  # before an answer of the history that had no room left is asked for again
