"""The root of our exceptions. The branches show whose fault an error is, and so what to do about it.

Each of our exceptions belongs to one branch, and the code that answers for it needs to know only that:

* `CallerError`     what was sent cannot be taken; sent again unchanged, it is refused again. HTTP's 4xx.
* `OperatorError`   a setting, or what is installed, is wrong; a person has to change it. Exit code 2.
* `NeighbourError`  another server is away or refuses: the database, Redis, an issuer. Try again later; 503.

Anything else that is raised is a defect of ours.
"""

from __future__ import annotations


class OrderbellError(Exception):
    """The message is one line, written for the person who can correct the fault."""


class CallerError(OrderbellError):
    """What was sent cannot be taken."""


class OperatorError(OrderbellError):
    """A setting, or what is installed, is wrong."""


class NeighbourError(OrderbellError):
    """A server that we need is away, or refuses."""
