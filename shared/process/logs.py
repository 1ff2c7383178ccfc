"""Logs: one JSON object a line (or colours for a console), ours and the libraries' alike.

What happened is logged, once. Never an event's data, never a token. A channel's name, which has a customer's
id in it, is hashed unless ORDERBELL_LOG_CHANNELS is `plain`. Nothing waits for a line to be written
(shared/process/lines.py).

SIGUSR1 lets a running process log at DEBUG, SIGUSR2 at the level of its settings again.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from shared.process.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, WrappedLogger

VERBOSE, USUAL = signal.SIGUSR1, signal.SIGUSR2
_OF_SEVERAL_LINES = frozenset({"exception", "stack"})
HASHED, PLAIN = "hashed", "plain"  # how channels are named
_MAX_TEXT = 1_000  # characters of one value; what callers send ends up in some of them


def configure_logs(log_format: str, level: str, service: str, *, channels: str = HASHED) -> Lines:
    """Send every record of this process to standard error, one line each.

    An exception that ends the process, or a thread, is such a record, too: printed as Python does, it would
    wait for the reader of a full pipe instead of ending.

    Our own records take structlog's short way: a gateway logs two for each connection, and through the
    standard library's logging each would cost as much as checking its token.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_colors,
        _tamed_for(log_format),
        *([_hash_channel] if channels == HASHED else []),
        _Name(service),
    ]
    rendering = _rendering(log_format)
    lines = Lines(2, _note_of([*shared, *rendering]))
    atexit.register(lines.close)
    structlog.configure(
        processors=[*shared, *rendering],
        logger_factory=lambda name="": _Logger(lines, name),
        wrapper_class=_Leveled,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    # At DEBUG, websockets prints the frames of clients: tokens and payloads.
    for chatty in ("httpx2", "httpcore2", "alembic", "uvicorn.error", "websockets"):
        logging.getLogger(chatty).setLevel("WARNING")
    # Python's own printing would wait for the reader of a full pipe.
    logging.captureWarnings(capture=True)
    sys.excepthook = lambda kind, error, traceback: _log_end("ended by an exception", error)
    threading.excepthook = lambda args: _log_end("a thread was ended by an exception", args.exc_value)
    sys.unraisablehook = lambda args: _log_end("an exception was ignored", args.exc_value)
    if threading.current_thread() is threading.main_thread():
        signal.signal(VERBOSE, lambda *_: change_level("DEBUG"))
        signal.signal(USUAL, lambda *_: change_level(level))
    return lines


class _Leveled(structlog.make_filtering_bound_logger("INFO")):  # type: ignore[misc]
    """Every cached logger is one of these; `set_level` replaces its base, so a level costs no check."""


def set_level(level: str) -> None:
    _Leveled.__bases__ = (structlog.make_filtering_bound_logger(level),)
    logging.getLogger().setLevel(level)


def change_level(level: str) -> None:
    set_level(level)
    structlog.get_logger(__name__).warning("the log level was changed", to=level)


def _log_end(event: str, error: BaseException | None) -> None:
    if error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
        structlog.get_logger(__name__).critical(event, exc_info=error)


def _note_of(processors: list[Any]) -> Callable[[int], str]:
    """Makes the line that reports dropped lines, which must not go through the queue itself."""

    def note(count: int) -> str:
        event: Any = {"event": "log lines were dropped, their reader was too slow", "count": count}
        for processor in processors:
            event = processor(_Logger(None, __name__), "warning", event)
        return str(event)

    return note


def _rendering(log_format: str) -> list[Any]:
    if log_format == "json":
        # Without locals: they hold payloads and tokens.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(_to_json),
        ]
    plain = structlog.dev.plain_traceback
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


def _to_json(event: EventDict, default: Callable[[object], object]) -> str:
    return msgspec.json.encode(event, enc_hook=default).decode()


class _Logger:
    """Writes structlog's records to our lines, whatever their level."""

    def __init__(self, lines: Lines | None, name: str = "") -> None:
        self.name = name
        if lines is not None:
            self.msg = self.debug = self.info = self.warning = self.error = self.critical = lines.write
            self.exception = lines.write


class _Handler(logging.Handler):
    """Writes the records of the standard library's logging."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.write(self.format(record))


def _add_logger_name(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    record = event.get("_record")  # of the standard library's logging
    event["logger"] = record.name if record is not None else logger.name
    return event


class _Name:
    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event["service"] = self._service
        return event


def _drop_colors(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)  # uvicorn's second copy of the message
    return event


def _tamed_for(log_format: str) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    """Shortens long texts, and escapes what a terminal would obey instead of showing it."""
    left = "".join(map(chr, range(32))) if log_format == "json" else ""  # JSON escapes these itself

    def shown(character: str) -> str:
        if character.isprintable() or character in left:
            return character
        return character.encode("unicode_escape").decode()

    def tame(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        for key, value in event.items():
            if isinstance(value, str) and key not in _OF_SEVERAL_LINES:
                if len(value) > _MAX_TEXT:
                    event[key] = value = value[:_MAX_TEXT] + "…"
                if not value.isprintable():
                    event[key] = "".join(map(shown, value))
        return event

    return tame


def hash_of(channel: str) -> str:
    """What stands for a channel: `printf %s customer:alice | sha256sum | cut -c1-16`."""
    return hashlib.sha256(channel.encode(errors="replace")).hexdigest()[:16]


def _hash_channel(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if channel := event.get("channel"):
        event["channel"] = hash_of(str(channel))
    return event
