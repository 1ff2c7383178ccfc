"""`/asyncapi.json`: what clients get over WebSocket, event streams and STOMP, and what goes over Redis.

AsyncAPI 3.0, from the gateway's side: it sends events and notices, and receives a client's messages. Notices,
messages and names in Redis are generated from the code's own types, so none can be missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from receiver.connections.messages import MESSAGES
from receiver.connections.notices import Notice
from receiver.serving.schemas import CLOUD_EVENT, CURSORS, EVENT
from receiver.transports.stomp.destinations import NOTICES, ORDERS, TOPICS
from receiver.transports.stomp.endpoint import SUBPROTOCOLS
from receiver.transports.websocket.endpoint import SUBPROTOCOL
from shared import __version__
from shared.channels import Channel
from shared.redis.inquiries import GATEWAYS, GatewayReport, Question

if TYPE_CHECKING:
    from shared.redis.keys import Names

Json = dict[str, Any]

_REF = "#/components/schemas/{name}"
_CLOUD_EVENTS = "application/cloudevents+json"
_STREAMED = ("events", "eventStream", "stompOrders", "stompTopic", "stompNotices")


def document(names: Names) -> Json:
    """`names`: of this installation in Redis."""
    notices = {_name(kind.type): kind for kind in Notice.__subclasses__()}
    received = {f"client{_name(kind).title()}": (kind, body) for kind, body in MESSAGES.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Orderbell gateway",
            "version": __version__,
            "description": "Events of customers and topics, and the gateway's own notices.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": _CLOUD_EVENTS,
        "servers": {
            "gateway": {"host": "127.0.0.1:8091", "protocol": "ws"},
            "http": {"host": "127.0.0.1:8091", "protocol": "http"},
            "redis": {"host": "127.0.0.1:6379", "protocol": "redis"},
        },
        "channels": _channels(names, list(notices), list(received)),
        "operations": _operations(list(received)),
        "components": {
            "messages": {
                "event": _message("Event", "event", "An event, with its place."),
                **{
                    name: _message(kind.type, name, (kind.__doc__ or "").strip().split("\n")[0])
                    for name, kind in notices.items()
                },
                **{
                    name: _message(kind, name, (body.__doc__ or "").strip().split("\n")[0])
                    for name, (kind, body) in received.items()
                },
                **_OF_REDIS,
            },
            "schemas": _schemas(notices, received),
        },
    }


def _name(kind: str) -> str:
    return kind.removeprefix("orderbell.")


def _message(title: str, schema: str, summary: str) -> Json:
    return {"name": title, "title": title, "summary": summary, "payload": {"$ref": _REF.format(name=schema)}}


def _channels(names: Names, notices: list[str], received: list[str]) -> Json:
    query = {"type": "object", "properties": {"after": CURSORS, "ticket": {"type": "string"}}}
    sent = ["event", *notices]
    parameter = {"channel": {"description": "customer:<id> or topic:<name>, percent-encoded."}}
    live, probe, log = (
        names.live(Channel("{channel}")),
        names.probe("{gateway}"),
        names.log(Channel("{channel}")),
    )
    return {
        "events": {
            "address": "/events",
            "description": f"WebSocket with the subprotocol {SUBPROTOCOL}.",
            "servers": [_server("gateway")],
            "messages": _messages(*sent, *received),
            "bindings": {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}},
        },
        "eventStream": {
            "address": "/events",
            "description": "Server-Sent Events: `data` is the message, `id` the connection's cursor.",
            "servers": [_server("http")],
            "messages": _messages(*sent),
        },
        "stompOrders": _stomp(ORDERS, "The customer's own channel.", "event", "reset"),
        "stompTopic": _stomp(f"{TOPICS}{{name}}", "A topic that the token names.", "event", "reset")
        | {"parameters": {"name": {"description": "The topic's name."}}},
        "stompNotices": _stomp(NOTICES, "The gateway's own messages.", *notices),
        "live": {
            "address": live,
            "description": "Pub/Sub, sharded in a cluster: what the sender publishes, and gateways hear.",
            "servers": [_server("redis")],
            "parameters": parameter,
            "messages": _messages("liveEvent", "liveSeen", "liveErased"),
        },
        "log": {
            "address": log,
            "description": "A stream: the channel's recent events, field `e`, under the id <seq>-0.",
            "servers": [_server("redis")],
            "parameters": parameter,
            "messages": _messages("event"),
        },
        "probe": {
            "address": probe,
            "description": "Pub/Sub: what a gateway sends to itself to prove that it hears.",
            "servers": [_server("redis")],
            "parameters": {"gateway": {"description": "Its name."}},
            "messages": _messages("probe"),
        },
        "questions": {
            "address": names.live(Channel("{name}")),
            "description": "Pub/Sub: what senders ask all gateways for `/trace` and `/connections`.",
            "servers": [_server("redis")],
            "parameters": {"name": {"enum": [GATEWAYS], "default": GATEWAYS}},
            "messages": _messages("question"),
        },
        "answers": {
            "address": names.answers("{question}"),
            "description": "A list: what each gateway answers. It expires after 10 s.",
            "servers": [_server("redis")],
            "parameters": {"question": {"description": "The `id` of the question."}},
            "messages": _messages("answer"),
        },
    }


def _stomp(address: str, description: str, *messages: str) -> Json:
    return {
        "address": address,
        "description": f"STOMP destination, with one of {', '.join(SUBPROTOCOLS)}. {description}",
        "servers": [_server("gateway")],
        "messages": _messages(*messages),
    }


def _server(name: str) -> Json:
    return {"$ref": f"#/servers/{name}"}


def _messages(*names: str) -> Json:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _operations(received: list[str]) -> Json:
    sending: Json = {
        f"send{channel[0].upper()}{channel[1:]}": {
            "action": "send",
            "channel": {"$ref": f"#/channels/{channel}"},
        }
        for channel in _STREAMED
    }
    sending["sendEvents"]["summary"] = "First hello, then events in order, with notices in between."
    sending["sendEvents"]["messages"] = [
        {"$ref": f"#/channels/events/messages/{name}"}
        for name in ("event", *(_name(kind.type) for kind in Notice.__subclasses__()))
    ]
    return {
        **sending,
        "receiveMessages": {
            "action": "receive",
            "channel": {"$ref": "#/channels/events"},
            "messages": [{"$ref": f"#/channels/events/messages/{name}"} for name in received],
        },
        "hear": {"action": "receive", "channel": {"$ref": "#/channels/live"}},
        "readLog": {"action": "receive", "channel": {"$ref": "#/channels/log"}},
        "sendProbe": {"action": "send", "channel": {"$ref": "#/channels/probe"}},
        "hearQuestion": {"action": "receive", "channel": {"$ref": "#/channels/questions"}},
        "sendAnswer": {"action": "send", "channel": {"$ref": "#/channels/answers"}},
    }


def _text(name: str, summary: str, pattern: str, *examples: str) -> Json:
    payload = {"type": "string", "pattern": pattern, "examples": list(examples)}
    return {"name": name, "title": name, "summary": summary, "contentType": "text/plain", "payload": payload}


def _json(name: str, summary: str, body: type) -> Json:
    return _message(name, body.__name__, summary) | {"contentType": "application/json"}


_PLACE = "[1-9][0-9]* (0|[1-9][0-9]*)"
_OF_REDIS: Json = {
    "liveEvent": _text(
        "liveEvent", "Epoch, seq and the event's JSON.", rf"^{_PLACE} \{{", '1 42 {"specversion":"1.0",…}'
    ),
    "liveSeen": _text(
        "liveSeen",
        "What the customer has seen: up to a place, and beyond it.",
        rf"^seen {_PLACE}(\+[0-9.,+-]+)?$",
        "seen 1 42",
    ),
    "liveErased": _text("liveErased", "The customer was erased.", "^erased$", "erased"),
    "question": _json("question", "About one channel, or about all connections.", Question),
    "answer": _json("answer", "What one gateway knows.", GatewayReport),
    "probe": _text("probe", "A message that comes back proves that the gateway hears Redis.", "", "17"),
}


def _schemas(notices: dict[str, type[Notice]], received: dict[str, tuple[str, type]]) -> Json:
    types = [*notices.values(), *(body for _, body in received.values()), Question, GatewayReport]
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    events = {
        name: _event_of(kind.type, kind.__name__, required=["specversion", "id", "source", "type", "data"])
        for name, kind in notices.items()
    }
    events |= {
        name: _event_of(kind, body.__name__, required=["type"]) for name, (kind, body) in received.items()
    }
    return {**components, "cloudEvent": CLOUD_EVENT, "event": {"allOf": [CLOUD_EVENT, EVENT]}, **events}


def _event_of(kind: str, data: str, *, required: list[str]) -> Json:
    """Of a client's messages only `type` and `data` are read."""
    return {
        "type": "object",
        "required": required,
        "properties": {"type": {"const": kind}, "data": {"$ref": _REF.format(name=data)}},
    }
