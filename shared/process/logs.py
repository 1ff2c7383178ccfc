"""Logs: one JSON object a line (or colours for a console), ours and the libraries' alike.

What is logged is what happened, once. Never an event's data, never a token.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, WrappedLogger

_MAX_TEXT = 1_000  # characters of one value; what callers send ends up in some of them


def configure_logs(log_format: str, level: str, service: str) -> None:
    """Send every record of this process to standard error, one line each.

    Our own records take structlog's short way: a gateway logs two for each connection, and through the
    standard library's logging each would cost as much as checking its token.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_colors,
        _shorten,
        _Name(service),
    ]
    rendering = _rendering(log_format)
    structlog.configure(
        processors=[*shared, *rendering],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx2", "httpcore2", "alembic", "uvicorn.error"):
        logging.getLogger(chatty).setLevel("WARNING")


def _rendering(log_format: str) -> list[Any]:
    if log_format == "json":
        # Without locals: they hold payloads and tokens.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(_to_json),
        ]
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _to_json(event: EventDict, default: Callable[[object], object]) -> str:
    return msgspec.json.encode(event, enc_hook=default).decode()


class _Lines:
    """What structlog logs to in the end: standard error, whatever the level.

    A line and its end go in one write, so that those of several processes don't mix: unbuffered, as in our
    image, `print` takes two.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    debug = info = warning = error = critical = exception = msg


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


def _shorten(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _MAX_TEXT and key != "exception":
            event[key] = value[:_MAX_TEXT] + "…"
    return event
