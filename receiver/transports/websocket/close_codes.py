"""The close codes that give the reason why a WebSocket ends. RFC 6455 7.4.2: 4000-4999 are ours."""

from __future__ import annotations

import enum

from receiver.connections.connection import End


class Close(enum.IntEnum):
    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_CODE = 1005  # never sent: the client's close frame had none
    VANISHED = 1006  # never sent: there was no close frame
    INVALID_DATA = 1007
    MESSAGE_TOO_BIG = 1009  # sent by websockets; listed here because docs/protocol.md must match this list
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_MESSAGE = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    SLOW = 4408
    TOO_MANY_CONNECTIONS = 4409
    TOO_FAST = 4429


CODES = {
    End.INTERNAL_ERROR: Close.INTERNAL_ERROR,
    End.RESTART: Close.RESTART,
    End.TRY_AGAIN_LATER: Close.TRY_AGAIN_LATER,
    End.BAD_MESSAGE: Close.BAD_MESSAGE,
    End.UNAUTHENTICATED: Close.UNAUTHENTICATED,
    End.FORBIDDEN: Close.FORBIDDEN,
    End.SLOW: Close.SLOW,
    End.TOO_MANY_CONNECTIONS: Close.TOO_MANY_CONNECTIONS,
    End.TOO_FAST: Close.TOO_FAST,
}
