"""The root of our exceptions. Its branches say whose fault an error is, and so what to do about it.

An exception of ours is of one branch, and the boundary that catches it needs to know no more than that:

* `CallerError`     what was sent cannot be taken; sent again unchanged, it is refused again. HTTP's 4xx.
* `OperatorError`   a setting, or what is installed, is wrong; a person has to change it. Exit code 2.
* `NeighbourError`  another server is away or refuses: the database, Redis, an issuer. Try again later; 503.

Anything else that is raised is a defect of ours.
"""

from __future__ import annotations


class OrderbellError(Exception):
    """The message is one line, made for the person whose fault it is."""


class CallerError(OrderbellError):
    """What was sent cannot be taken."""


class OperatorError(OrderbellError):
    """A setting, or what is installed, is wrong."""


class NeighbourError(OrderbellError):
    """A server that we need is away, or refuses."""
