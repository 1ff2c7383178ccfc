"""What the database may answer instead of its work, and whose fault that is.

DatabaseError              not the caller's fault, and nothing is stored
  DatabaseUnavailable      locked, unreachable or overloaded: the caller may come back
  DatabaseFull             no space is left
DatabaseUnusable           at start: a database that could not keep what we promise
"""

from __future__ import annotations

from shared.errors import NeighbourError, OperatorError


class DatabaseError(NeighbourError):
    """The database could not do its part; the caller may come back."""


class DatabaseUnavailable(DatabaseError):
    """Locked, unreachable or overloaded."""


class RowHeld(DatabaseUnavailable):
    """Somebody's lock on what this needs was not given back in time."""


class DatabaseFull(DatabaseError):
    """No space is left for what should be stored."""


class DatabaseFault(DatabaseError):
    """The database refuses what it should take: a defect of ours, or somebody changed our tables."""


class DatabaseUnusable(OperatorError):
    """Raised at start: a database that could not keep what we promise. One line, for the operator."""
