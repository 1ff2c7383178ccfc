"""`/openapi.json` of a gateway: what it answers over plain HTTP. OpenAPI 3.1.

Bodies are generated from the types that parse them. What comes over WebSocket, an event stream or STOMP is in
`/asyncapi.json` (receiver/serving/asyncapi.py); OpenAPI 3.1 knows a stream only as text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from receiver.connections import messages
from receiver.serving.alerts import DEFAULT_LIMIT, MAX_LIMIT
from receiver.serving.schemas import CLOUD_EVENT, CURSORS, EVENT
from shared import __version__, problems

Json = dict[str, Any]

_REF = "#/components/schemas/{name}"
_REASONS = {
    400: "The request is malformed; `detail` names the part.",
    401: "The token is missing, wrong or has expired.",
    403: "The token does not allow this, the page's origin is not allowed, or ORDERBELL_ADMIT refuses.",
    404: "A path that is not as described, or another customer's.",
    429: "Too many, or too fast: come back after Retry-After.",
    503: "Draining, overloaded, or a neighbour is away: come back after Retry-After.",
}
_ALWAYS = (400, 401, 403, 503)


def document() -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Orderbell gateway",
            "version": __version__,
            "description": "Hands a customer's events to browsers and other clients.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"ticket": []}, {"cookie": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "orderbell_token"},
            },
            "schemas": _schemas(),
        },
    }


def _paths() -> Json:
    return {
        "/events": {
            "get": _operation(
                "listen",
                "Events as a stream or by polling; for WebSocket see `/asyncapi.json`",
                {
                    200: {
                        "description": "A stream, where each `data` is an event or a notice; or a page.",
                        "content": {
                            "text/event-stream": {"schema": {"type": "string"}},
                            "application/json": {"schema": _ref("Page")},
                        },
                    },
                    304: {"description": "Nothing has come since the answer with this ETag."},
                    426: _problem("The request asks for neither a stream nor a poll."),
                },
                (*_ALWAYS, 429),
                parameters=[
                    _query(
                        "wait",
                        {"type": "number", "minimum": 0},
                        "Seconds that a poll may wait; 0: not at all.",
                    ),
                    _query("after", CURSORS, "Where to resume; by default after what the customer has seen."),
                    _query("session", {"type": "string", "pattern": "^[A-Za-z0-9._~-]{1,64}$"}, "Of a poll."),
                    _query(
                        "lastEventId",
                        CURSORS,
                        "As `after`; takes precedence over it. Polyfills and Mercure's clients also call it"
                        " lastEventID, Last-Event-ID or evs_last_event_id.",
                    ),
                    _header("Last-Event-ID", "As `after`; takes precedence over both."),
                    _header("If-None-Match", "For plain polls."),
                ],
            ),
            "delete": _operation(
                "endPolling",
                "End a poll's session before its time",
                {204: {"description": "The session has ended, or there was none."}},
                _ALWAYS,
                parameters=[_query("session", {"type": "string"}, "Its name.")],
            ),
        },
        "/seen": {
            "post": _operation(
                "reportSeen",
                "Report what was shown",
                {202: {"description": "The report is on its way."}},
                _ALWAYS,
                body=_ref("SeenReport"),
            )
        },
        "/tickets": {
            "post": _operation(
                "issueTicket",
                "A single-use ticket in place of the token, for clients that can set no header",
                {201: _json("Valid for some seconds, once.", _ref("Ticket"))},
                (*_ALWAYS, 429),
            )
        },
        "/alerts": {
            "get": _operation(
                "listAlerts",
                "The customer's own list, newest first",
                {200: _json("Alerts, the number of unread ones, and the place where that is true.", _OBJECT)},
                (*_ALWAYS, 429),
                parameters=[
                    _query("before", CURSORS, "Older than this."),
                    _query("channel", {"type": "string"}, "A topic in place of the customer's own channel."),
                    _query(
                        "limit",
                        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                        "How many.",
                    ),
                ],
            )
        },
        "/read": {
            "post": _operation(
                "markRead",
                "Mark alerts as read",
                {200: _json("The number of alerts that are still unread.", _OBJECT)},
                (*_ALWAYS, 429),
                body=_ref("ReadReport"),
            )
        },
        "/stomp": {
            "get": _operation(
                "stomp",
                "STOMP over WebSocket: see `/asyncapi.json`",
                {426: _problem("The request asks for no WebSocket.")},
                open=True,
            )
        },
        **_sockjs_paths("/websocket", "sockjs"),
        **_sockjs_paths("/gs-guide-websocket", "guideSockjs"),
        "/livez": {
            "get": _operation("live", "Whether it is alive", {200: _json("It is alive.", _OBJECT)}, open=True)
        },
        "/readyz": {
            "get": _operation(
                "ready",
                "Whether new connections should come here",
                {
                    200: _json("They should.", _OBJECT),
                    503: _json("They should not.", _OBJECT),
                },
                open=True,
            )
        },
        "/metrics": {
            "get": _operation(
                "metrics",
                "Prometheus metrics",
                {200: {"description": "As text.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
                open=True,
            )
        },
        "/openapi.json": {
            "get": _operation("openapi", "This document", {200: _json("JSON.", _OBJECT)}, open=True)
        },
        "/asyncapi.json": {
            "get": _operation(
                "asyncapi", "What comes over streams", {200: _json("JSON.", _OBJECT)}, open=True
            )
        },
    }


_OBJECT: Json = {"type": "object"}


def _sockjs_paths(prefix: str, name: str) -> Json:
    """STOMP over SockJS. `server` counts for nothing; `session` is the client's own random name for it."""
    parts = [
        {
            "name": part,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": "^[^/.]{1,64}$"},
        }
        for part in ("server", "session")
    ]
    frames = {"application/javascript": {"schema": {"type": "string"}}}
    received: dict[int, Json] = {
        200: {"description": "SockJS's frames, a line each; the first request opens.", "content": frames}
    }
    texts = {"text/plain": {"schema": {"type": "string"}}}
    sent: dict[int, Json] = {
        204: {"description": "The messages were taken."},
        404: _problem("There is no such session, or it has ended."),
        413: _problem("More than a frame of STOMP may have."),
        500: {"description": "Not a JSON array of texts; what SockJS's protocol says.", "content": texts},
    }
    messages = {"required": True, "content": {"text/plain": {"schema": {"type": "string"}}}}
    session = f"{prefix}/{{server}}/{{session}}"
    called = {
        "xhr": ("Receive", "SockJS: wait for the next messages", received, (400, 403, 404, 429, 503)),
        "xhr_streaming": ("Stream", "SockJS: messages as they come", received, (400, 403, 404, 429, 503)),
        "xhr_send": ("Send", "SockJS: send STOMP's frames", sent, (403,)),
    }
    return {
        prefix: {
            "get": _operation(
                f"{name}Welcome",
                "A greeting; with an upgrade, STOMP over WebSocket",
                {200: {"description": "The greeting of every SockJS server.", "content": texts}},
                open=True,
            )
        },
        f"{prefix}/info": {
            "get": _operation(
                f"{name}Info", "SockJS's information", {200: _json("What it offers.", _OBJECT)}, open=True
            )
        },
        **{
            f"{session}/{path}": {
                "post": _operation(f"{name}{verb}", summary, answers, refusals, parameters=parts, open=True)
                | ({"requestBody": messages} if path == "xhr_send" else {})
            }
            for path, (verb, summary, answers, refusals) in called.items()
        },
    }


def _operation(
    name: str,
    summary: str,
    answers: dict[int, Json],
    refusals: tuple[int, ...] = (),
    *,
    parameters: list[Json] | None = None,
    body: Json | None = None,
    open: bool = False,
) -> Json:
    responses = {str(status): answer for status, answer in answers.items()}
    responses |= {str(status): _problem(_REASONS[status]) for status in refusals}
    operation: Json = {"operationId": name, "summary": summary, "responses": responses}
    if open:
        operation["security"] = []
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problem(description: str) -> Json:
    return {"description": description, "content": {problems.MEDIA_TYPE: {"schema": _ref("Problem")}}}


def _query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _header(name: str, description: str) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


def _ref(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}


def _schemas() -> Json:
    types = (messages.SeenReport, messages.ReadReport)
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    texts = {"type": "string"}
    return {
        **components,
        "CloudEvent": CLOUD_EVENT,
        "Event": {"allOf": [_ref("CloudEvent"), EVENT]},
        "Page": {
            "type": "object",
            "required": ["events", "notices", "cursor"],
            "properties": {
                "events": {"type": "array", "items": _ref("Event")},
                "notices": {"type": "array", "items": _ref("CloudEvent")},
                "cursor": CURSORS,
            },
        },
        "Ticket": {
            "type": "object",
            "required": ["ticket", "expires_in"],
            "properties": {"ticket": texts, "expires_in": {"type": "integer", "minimum": 1}},
        },
        "Problem": {
            "type": "object",
            "description": "RFC 9457.",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"type": "string", "examples": ["urn:orderbell:problem:unauthenticated"]},
                "title": texts,
                "status": {"type": "integer"},
                "detail": texts,
            },
        },
    }
