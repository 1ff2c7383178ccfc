"""How the database may fail, and whose fault that is.

DatabaseError              not the caller's fault, and nothing is stored
  DatabaseUnavailable      locked, unreachable or overloaded: the caller may try again
    DatabaseBusy           only overloaded
    DatabaseDamaged        its content is not a database's any more: the sender ends
  DatabaseFull             no space is left
DatabaseUnusable           at start: a database that could not keep what we promise
"""

from __future__ import annotations

from shared.errors import NeighbourError, OperatorError


class DatabaseError(NeighbourError):
    """The database could not do its part; the caller may try again."""


class DatabaseUnavailable(DatabaseError):
    """Locked, unreachable or overloaded."""


class RowHeld(DatabaseUnavailable):
    """Another transaction's lock on what this needs was not released in time."""


class DatabaseBusy(DatabaseUnavailable):
    """Other work came first; nothing is wrong with the database."""


class DatabaseDamaged(DatabaseUnavailable):
    """What is stored is not a database's content any more. A person has to restore a backup."""


class DatabaseFull(DatabaseError):
    """No space is left for what should be stored."""


class DatabaseFault(DatabaseError):
    """The database refused valid work: a defect of ours, or our tables were changed."""


class DatabaseUnusable(OperatorError):
    """Raised at start: a database that could not keep what we promise. One line, for the operator."""
