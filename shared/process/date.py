"""`Date`, which RFC 9110 6.6.1 asks of every answer: made once for all answers of a second."""

from __future__ import annotations

import functools
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.process.head import Header


def date_now() -> Header:
    return _date_of(int(time.time()))


@functools.lru_cache(maxsize=1)
def _date_of(second: int) -> Header:
    return (b"date", formatdate(second, usegmt=True).encode())
