"""`/openapi.json`: the sender's HTTP API as a machine reads it.

Bodies and query parameters are made from the types that parse and answer them, so they cannot say anything
else. What is written here by hand is what types don't know: routes, statuses, headers, CloudEvents.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sender import history, idempotency
from sender.http import binding, bodies
from sender.http.api import DeadLettersQuery, EventsQuery, OrdersQuery
from shared import __version__, problems
from shared.channels import ENCODED_NAME, NAME
from shared.events import MAX_EVENT_BYTES

Json = dict[str, Any]

_REF = "#/components/schemas/{name}"
_BODIES = (
    bodies.PlaceOrder,
    bodies.CompleteOrder,
    bodies.HistoryRequest,
    bodies.SeenRequest,
    bodies.CompletedOrder,
    bodies.Orders,
    bodies.EventResults,
    bodies.ChannelEvents,
    bodies.HistoryBody,
    bodies.SeenBody,
    bodies.DeadLettersBody,
    bodies.ErasedCustomer,
)
_REASONS = {
    400: "What was sent is not understood; `detail` says which part.",
    401: "No API key, or a wrong one.",
    404: "No such order.",
    409: "It was sent before with other content.",
    410: "The cursor cannot be honoured: load the state anew and go on at `as_of`.",
    413: "Too large.",
    415: "A Content-Type or charset that is not taken here.",
    422: "The Idempotency-Key came before with another body.",
    503: "The database is locked, away or overloaded; nothing was stored. Come back after Retry-After.",
    507: "The database's disk is full; nothing was stored.",
}
_ALWAYS = (400, 401, 503)
_WRITING = (*_ALWAYS, 413, 415, 422, 507)


def document() -> Json:
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
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "One of ORDERBELL_API_KEYS."}
            },
            "schemas": _schemas(),
        },
    }


def _paths() -> Json:
    return {
        "/orders": {
            "post": _operation(
                "placeOrder",
                "Place an order",
                body=_json(bodies.PlaceOrder),
                answers={
                    201: _answer("Placed.", _schema("Order")),
                    200: _answer("Placed before, with the same content.", _schema("Order")),
                },
                refusals=(*_WRITING, 409),
            ),
            "get": _operation(
                "listOrders",
                "Orders, newest first, and the customer's cursor from the same snapshot",
                parameters=_query(OrdersQuery),
                answers={200: _answer("What was found.", _schema("Orders"))},
                refusals=(*_ALWAYS, 404),
            ),
        },
        "/orders/{order_id}/complete": {
            "post": _operation(
                "completeOrder",
                "Complete an order; repeated, it answers with the same event",
                parameters=[_in_path("order_id", {"type": "string", "pattern": f"^{NAME}$"})],
                body=_json(bodies.CompleteOrder) | {"required": False},
                answers={200: _answer("Completed, and on disk.", _schema("CompletedOrder"))},
                refusals=(*_WRITING, 404),
            )
        },
        "/events": {
            "post": _operation(
                "postEvents",
                "Record events of your own: CloudEvents over HTTP, structured, binary or in a batch",
                parameters=_ce_headers(),
                body=_events_body(),
                answers={202: _answer("Each event's result, in order.", _schema("EventResults"))},
                refusals=(*_WRITING, 409),
            )
        },
        "/channels/{channel}/events": {
            "get": _operation(
                "readChannel",
                "A channel's events, oldest first",
                parameters=[_in_path("channel", _CHANNEL), *_query(EventsQuery)],
                answers={200: _answer("Events after the cursor.", _schema("ChannelEvents"))},
                refusals=(*_ALWAYS, 410),
            )
        },
        "/history": {
            "post": _operation(
                "readHistory",
                "Many channels' events, all from one snapshot",
                body=_json(bodies.HistoryRequest),
                answers={200: _answer("A channel each, in the order asked.", _schema("HistoryBody"))},
                refusals=_WRITING,
            )
        },
        "/seen": {
            "post": _operation(
                "moveSeen",
                "Move seen cursors forward; those behind, beyond the head or of another epoch move nothing",
                body=_json(bodies.SeenRequest),
                answers={200: _answer("Where each is now, in order.", _schema("SeenBody"))},
                refusals=_WRITING,
            )
        },
        "/customers/{customer_id}": {
            "delete": _operation(
                "eraseCustomer",
                "Erase all that names a customer, and end the connections of their devices; again: zeros",
                parameters=[_in_path("customer_id", {"type": "string", "pattern": f"^{NAME}$"})],
                answers={200: _answer("What was erased.", _schema("ErasedCustomer"))},
                refusals=(*_ALWAYS, 507),
            )
        },
        "/dead-letters": {
            "get": _operation(
                "listDeadLetters",
                "Events that could not be published and were given up, newest first",
                parameters=_query(DeadLettersQuery),
                answers={200: _answer("What was found.", _schema("DeadLettersBody"))},
                refusals=_ALWAYS,
            )
        },
        "/livez": {"get": _open("live", "Whether the process lives", _OBJECT)},
        "/readyz": {
            "get": _open(
                "ready", "Whether the database answers and the relay lives", _OBJECT, refusal=_OBJECT
            )
        },
        "/metrics": {"get": _open("metrics", "Prometheus metrics", {"type": "string"}, media="text/plain")},
        "/openapi.json": {"get": _open("openapi", "This document", _OBJECT)},
    }


def _operation(
    operation_id: str,
    summary: str,
    *,
    answers: dict[int, Json],
    refusals: tuple[int, ...],
    parameters: list[Json] | None = None,
    body: Json | None = None,
) -> Json:
    keyed = [_IDEMPOTENCY_KEY] if body is not None else []
    responses = {str(status): answer for status, answer in answers.items()}
    responses |= {str(status): _refusal(status) for status in sorted(refusals)}
    operation = {
        "operationId": operation_id,
        "summary": summary,
        "parameters": [*(parameters or []), *keyed],
        "responses": responses,
    }
    return operation | ({"requestBody": body} if body is not None else {})


def _open(
    operation_id: str,
    summary: str,
    schema: Json,
    *,
    media: str = "application/json",
    refusal: Json | None = None,
) -> Json:
    """An operation that needs no key."""
    content = {"content": {media: {"schema": schema}}}
    responses = {"200": {"description": "Yes.", **content}}
    if refusal is not None:
        responses["503"] = {"description": "No.", "content": {"application/json": {"schema": refusal}}}
    return {"operationId": operation_id, "summary": summary, "security": [], "responses": responses}


def _answer(description: str, schema: Json) -> Json:
    replayed = {"description": "Present where this answers a repetition.", "schema": {"const": "true"}}
    return {
        "description": description,
        "headers": {"Idempotency-Replayed": replayed},
        "content": {"application/json": {"schema": schema}},
    }


def _refusal(status: int) -> Json:
    return {
        "description": _REASONS[status],
        "content": {problems.MEDIA_TYPE: {"schema": _schema("Problem")}},
    }


def _json(body: type) -> Json:
    return {"required": True, "content": {"application/json": {"schema": _schema(body.__name__)}}}


def _events_body() -> Json:
    batch = {"type": "array", "items": _schema("CloudEvent"), "maxItems": bodies.MAX_BATCH}
    return {
        "required": True,
        "description": f"One event has at most {MAX_EVENT_BYTES} bytes, a batch at most "
        f"{bodies.MAX_BATCH} events and {bodies.MAX_BATCH_BYTES} bytes. With `ce-` headers the body is "
        "the event's data.",
        "content": {
            binding.STRUCTURED: {"schema": _schema("CloudEvent")},
            binding.BATCH: {"schema": batch},
            "*/*": {"schema": {}},
        },
    }


def _query(query: type) -> list[Json]:
    """A query's parameters, from its type."""
    properties = msgspec.json.schema(query)["$defs"][query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": _not_null(schema)}
        for name, schema in properties.items()
    ]


def _not_null(schema: Json) -> Json:
    """A parameter is left out, never null."""
    if "enum" in schema:
        return {"enum": [value for value in schema["enum"] if value is not None]}
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    return choices[0] if choices else schema


def _in_path(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _ce_headers() -> list[Json]:
    """Those of the binary mode that an event must have; further attributes are headers likewise."""
    return [
        {"name": f"ce-{name}", "in": "header", "required": False, "schema": {"type": "string"}}
        for name in ("specversion", "id", "source", "type", "channel")
    ]


def _schema(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}


def _schemas() -> Json:
    _, components = msgspec.json.schema_components(_BODIES, ref_template=_REF)
    return {**components, "CloudEvent": _CLOUD_EVENT, "Event": _EVENT, "Problem": _PROBLEM}


_OBJECT: Json = {"type": "object"}
_TEXT: Json = {"type": "string", "minLength": 1}
_CHANNEL: Json = {
    "type": "string",
    "description": "Every byte of its name but `A-Z a-z 0-9 . _ @ -` is percent-encoded, in upper-case hex.",
    "pattern": f"^(customer|topic):{ENCODED_NAME}$",
    "examples": ["customer:alice", "customer:auth0%7C5f7c"],
}
_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": f"Repeated with the same key, the answer is the same, for {idempotency.KEPT_HOURS} hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": idempotency.MAX_KEY_LENGTH},
}
_CLOUD_EVENT: Json = {
    "type": "object",
    "description": "CloudEvents 1.0 in JSON. `source` and `id` are its identity: repeated, it stays one.",
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
        "channel": _CHANNEL,
        "data": {},
        "data_base64": {"type": "string", "contentEncoding": "base64"},
    },
    "additionalProperties": {"type": ["string", "boolean", "integer", "null"]},
}
_EVENT: Json = {
    "description": "A recorded event: what was given, and its place.",
    "allOf": [_schema("CloudEvent")],
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
        "as_of": {"type": "string", "description": "With 410: the cursor to go on at."},
        "reset": {"enum": [reset.value for reset in history.Reset], "description": "With 410: why."},
    },
}
