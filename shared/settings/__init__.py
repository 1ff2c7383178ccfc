"""Settings: environment variables that start with `ORDERBELL_`, read once at start.

`load` reports every fault at once and ends the process with 2. A setting is a field of a class in
`service.py` (where both services need it), `sender.py`, `database.py` or `receiver.py`.
"""

from shared.settings.database import DatabaseSettings
from shared.settings.environment import PREFIX
from shared.settings.names import known_names
from shared.settings.reading import InvalidSettings, S, file_of, load, read
from shared.settings.receiver import TOGETHER, ReceiverSettings, SenderAddress, faults_together
from shared.settings.sender import WEBHOOK_EVENTS, SenderSettings
from shared.settings.service import Settings

__all__ = [
    "PREFIX",
    "TOGETHER",
    "WEBHOOK_EVENTS",
    "DatabaseSettings",
    "InvalidSettings",
    "ReceiverSettings",
    "S",
    "SenderAddress",
    "SenderSettings",
    "Settings",
    "faults_together",
    "file_of",
    "known_names",
    "load",
    "read",
]
