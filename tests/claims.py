"""What a test claims, in words, so that an ablation names a behaviour and not a line of another test's
source.

with claim("what comes behind a gap waits until the gap is filled"):
    await browser.wait_seqs([1, 2, 3])
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def claim(behaviour: str) -> Iterator[None]:
    """If a condition inside does not come true, or an assertion fails, this behaviour is missing."""
    try:
        yield
    except (AssertionError, TimeoutError) as failure:
        failure.add_note(_note(behaviour))
        raise


def missing(behaviour: str, failure: BaseException) -> bool:
    """Whether this failure shows that the behaviour is missing."""
    return _note(behaviour) in getattr(failure, "__notes__", ())


def _note(behaviour: str) -> str:
    return f"not so: {behaviour}"
