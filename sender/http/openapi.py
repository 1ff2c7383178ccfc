"""`/openapi.json`: the sender's HTTP API for machines. Its calls are in sender/http/routes.py.

Bodies and query parameters are generated from the types that parse and answer them, so they cannot differ.
Only what types don't know is written by hand: statuses, headers, CloudEvents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sender import history, idempotency
from sender.http import binding, bodies, reading
from sender.webhooks.message import MEDIA_TYPE, Kind, WebhookMessage
from shared import __version__, problems
from shared.channels import ENCODED_NAME
from shared.events import MAX_EVENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sender.http.calls import Call, Json

_REF = "#/components/schemas/{name}"
_BODIES = (
    bodies.PlaceOrder,
    bodies.CompleteOrder,
    bodies.HistoryRequest,
    bodies.SeenRequest,
    bodies.CancelOrder,
    bodies.RetractionRequest,
    bodies.ResendRequest,
    bodies.TrialRequest,
    bodies.ReadRequest,
    bodies.UnreadRequest,
    bodies.UnreadBody,
    bodies.RetractionBody,
    bodies.ResentBody,
    bodies.TrialBody,
    bodies.CancelledOrder,
    bodies.AlertsBody,
    bodies.CompletedOrder,
    bodies.Orders,
    bodies.EventResults,
    bodies.ChannelEvents,
    bodies.HistoryBody,
    bodies.SeenBody,
    bodies.DeadLettersBody,
    bodies.ErasedCustomer,
    bodies.RevocationRequest,
    bodies.RevocationBody,
    bodies.RevocationsBody,
    bodies.TraceBody,
    bodies.ConnectionsBody,
    WebhookMessage,
)
_REASONS = {
    400: "The request is malformed; `detail` names the part.",
    401: "The API key is missing or wrong.",
    403: "The API key lacks the scope that the call needs; `detail` names it.",
    404: "No such order or event.",
    409: "The same id was sent before with other content, or the order was cancelled.",
    410: "The cursor cannot be honoured: reload the state and continue at `as_of`.",
    413: "Too large.",
    429: "This key has made too many requests: wait for Retry-After.",
    415: "This Content-Type or charset is not supported here.",
    422: "The Idempotency-Key was used before with another body.",
    503: "The database is locked, away or overloaded; nothing was stored. Retry after Retry-After.",
    507: "The database's disk is full; nothing was stored.",
}
ALWAYS = (400, 401, 403, 429, 503)
WRITING = (*ALWAYS, 413, 415, 422, 507)


def document(calls: Iterable[Call]) -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Orderbell sender",
            "version": __version__,
            "description": "Records completed orders and other events, and publishes them to the gateways.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}],
        "paths": _paths(calls),
        "webhooks": {kind.value: {"post": _webhook(kind)} for kind in Kind},
        "components": {
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "One of ORDERBELL_API_KEYS."}
            },
            "schemas": _schemas(),
        },
    }


def _paths(calls: Iterable[Call]) -> Json:
    paths: Json = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return paths


def _webhook(kind: Kind) -> Json:
    """What we ask of the shop's own server, ORDERBELL_WEBHOOK_URL."""
    headers = {
        name: {"name": name, "in": "header", "required": True, "schema": _TEXT} for name in _WEBHOOK_HEADERS
    }
    return {
        "operationId": kind.value.replace(".", "_"),
        "summary": _WEBHOOKS[kind],
        "description": "Signed as Standard Webhooks 1.0; at least once, with one id; in no certain order.",
        "security": [],
        "parameters": list(headers.values()),
        "requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": schema("WebhookMessage")}}},
        "responses": {
            "2XX": {"description": "Delivered."},
            "410": {"description": "Given up, and nothing more is sent for an hour."},
            "default": {"description": "Tried again later, with 429 and 503 not before Retry-After."},
        },
    }


def _operation(call: Call) -> Json:
    responses = {str(status): answer for status, answer in call.answers.items()}
    responses |= {str(status): _refusal(status) for status in sorted(call.refusals)}
    described: Json = {"operationId": call.name, "summary": call.summary, "responses": responses}
    if not call.keyed:
        described["security"] = []
        if call.body is None:
            return described
    repeatable = [_IDEMPOTENCY_KEY] if call.body is not None else []
    described["parameters"] = [*call.parameters, *repeatable]
    return described | ({"requestBody": call.body} if call.body is not None else {})


def answer(description: str, body: Json) -> Json:
    replayed = {"description": "Present if this answers a repetition.", "schema": {"const": "true"}}
    return {
        "description": description,
        "headers": {"Idempotency-Replayed": replayed},
        "content": {"application/json": {"schema": body}},
    }


def plain(description: str, body: Json, *, media: str = "application/json") -> Json:
    """An answer that is never a stored one."""
    return {"description": description, "content": {media: {"schema": body}}}


def _refusal(status: int) -> Json:
    return {
        "description": _REASONS[status],
        "content": {problems.MEDIA_TYPE: {"schema": schema("Problem")}},
    }


def json_body(body: type) -> Json:
    return {"required": True, "content": {"application/json": {"schema": schema(body.__name__)}}}


def text_body() -> Json:
    return {"required": True, "content": {"text/plain": {"schema": {"type": "string", "minLength": 1}}}}


def events_body() -> Json:
    batch = {"type": "array", "items": schema("CloudEvent"), "maxItems": bodies.MAX_BATCH}
    return {
        "required": True,
        "description": f"One event has at most {MAX_EVENT_BYTES} bytes, a batch at most "
        f"{bodies.MAX_BATCH} events and {reading.MAX_BATCH_BYTES} bytes. With `ce-` headers the body is "
        "the event's data.",
        "content": {
            binding.STRUCTURED: {"schema": schema("CloudEvent")},
            binding.BATCH: {"schema": batch},
            "*/*": {"schema": {}},
        },
    }


def query(query_type: type) -> tuple[Json, ...]:
    """A query's parameters, from its type."""
    properties = msgspec.json.schema(query_type)["$defs"][query_type.__name__]["properties"]
    return tuple(
        {"name": name, "in": "query", "required": False, "schema": _not_null(schema)}
        for name, schema in properties.items()
    )


def _not_null(schema: Json) -> Json:
    """Without null: a parameter is left out instead."""
    if "enum" in schema:
        return {"enum": [value for value in schema["enum"] if value is not None]}
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    return choices[0] if choices else schema


def in_path(name: str, kind: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": kind}


def ce_headers() -> tuple[Json, ...]:
    """The headers of the attributes that an event must have in binary mode; others are headers, too."""
    return tuple(
        {"name": f"ce-{name}", "in": "header", "required": False, "schema": {"type": "string"}}
        for name in ("specversion", "id", "source", "type", "channel")
    )


def schema(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}


def _schemas() -> Json:
    _, components = msgspec.json.schema_components(_BODIES, ref_template=_REF)
    return {**components, "CloudEvent": _CLOUD_EVENT, "Event": _EVENT, "Problem": _PROBLEM}


_WEBHOOK_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
_WEBHOOKS = {
    Kind.SHOWN: "A device has reported an alert as seen.",
    Kind.READ: "A customer has read an alert.",
    Kind.NOT_SHOWN_IN: "No device has shown an alert within ORDERBELL_WEBHOOK_NOT_SHOWN_SECONDS.",
}
OBJECT: Json = {"type": "object"}
_TEXT: Json = {"type": "string", "minLength": 1}
CHANNEL: Json = {
    "type": "string",
    "description": "Every byte of the name but `A-Z a-z 0-9 . _ @ -` is percent-encoded, in upper-case hex.",
    "pattern": f"^(customer|topic):{ENCODED_NAME}$",
    "examples": ["customer:alice", "customer:auth0%7C5f7c"],
}
_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": f"A repetition with the same key gets the same answer for {idempotency.KEPT_HOURS} hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": idempotency.MAX_KEY_LENGTH},
}
_CLOUD_EVENT: Json = {
    "type": "object",
    "description": "CloudEvents 1.0 in JSON. `source` and `id` identify it: a repetition is the same event.",
    "required": ["specversion", "id", "source", "type", "channel"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": _TEXT,
        "source": _TEXT | {"format": "uri-reference"},
        "type": _TEXT,
        "subject": _TEXT,
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": _TEXT,
        "dataschema": _TEXT | {"format": "uri"},
        "channel": CHANNEL,
        "data": {},
        "data_base64": {"type": "string", "contentEncoding": "base64"},
    },
    "additionalProperties": {"type": ["string", "boolean", "integer", "null"]},
}
_EVENT: Json = {
    "description": "A recorded event: the event as posted, and its place.",
    "allOf": [schema("CloudEvent")],
    "required": ["epoch", "seq"],
    "properties": {"epoch": {"type": "integer", "minimum": 1}, "seq": {"type": "integer", "minimum": 1}},
}
_PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:orderbell:problem:unknown-order"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "as_of": {"type": "string", "description": "With 410: the cursor to continue at."},
        "reset": {"enum": [reset.value for reset in history.Reset], "description": "With 410: the reason."},
    },
}
