"""The one table of the sender's calls: the path, the endpoint and the description in `/openapi.json`.

Both the app's routes and the document's operations are made from it, so neither has one that the other lacks.
Pages and their files are not for machines; they are in sender/http/app.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from sender.http import bodies
from sender.http.api.alerts import AlertsQuery
from sender.http.api.histories import EventsQuery
from sender.http.api.operations import DeadLettersQuery
from sender.http.api.orders import OrdersQuery
from sender.http.api.revocations import RevocationsQuery
from sender.http.api.support import ConnectionsQuery, TraceQuery
from sender.http.calls import Call, Json
from sender.http.openapi import (
    ALWAYS,
    CHANNEL,
    OBJECT,
    WRITING,
    answer,
    ce_headers,
    document,
    events_body,
    in_path,
    json_body,
    plain,
    query,
    schema,
    text_body,
)
from shared.channels import NAME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from sender.http.api import Api

_NAME: Json = {"type": "string", "pattern": f"^{NAME}$"}


def _open(
    path: str,
    name: str,
    endpoint: Callable[[Api], Callable[[Request], Awaitable[Response]]],
    summary: str,
    answers: dict[int, Json],
) -> Call:
    """A call that needs no key."""
    return Call("GET", path, name, endpoint, summary, answers, keyed=False)


async def _openapi(request: Request) -> Response:
    return Response(msgspec.json.encode(document(request.app.state.calls)), media_type="application/json")


CALLS = (
    Call(
        "POST",
        "/orders",
        "placeOrder",
        lambda api: api.orders.place,
        "Place an order",
        {
            201: answer("Placed.", schema("Order")),
            200: answer("Already placed, with the same content.", schema("Order")),
        },
        (*WRITING, 409),
        body=json_body(bodies.PlaceOrder),
    ),
    Call(
        "GET",
        "/orders",
        "listOrders",
        lambda api: api.orders.list_some,
        "Orders, newest first, and the customer's cursor from the same snapshot",
        {200: answer("The orders found.", schema("Orders"))},
        (*ALWAYS, 404),
        parameters=query(OrdersQuery),
    ),
    Call(
        "GET",
        "/orders/changes",
        "watchOrders",
        lambda api: api.orders.changes,
        "The open orders and those that changed last; then each change, as long as the caller listens",
        {200: plain("Server-Sent Events; each is JSON.", {"type": "string"}, media="text/event-stream")},
        ALWAYS,
    ),
    Call(
        "POST",
        "/orders/{order_id}/complete",
        "completeOrder",
        lambda api: api.orders.complete,
        "Complete an order; a repetition returns the same event",
        {200: answer("The order is completed, and that is on disk.", schema("CompletedOrder"))},
        (*WRITING, 404),
        parameters=(in_path("order_id", _NAME),),
        body=json_body(bodies.CompleteOrder) | {"required": False},
    ),
    Call(
        "POST",
        "/orders/{order_id}/cancel",
        "cancelOrder",
        lambda api: api.alerts.cancel,
        "Cancel an order, and take its alert back if it has one; a repetition returns the same",
        {200: answer("The order is cancelled, and that is on disk.", schema("CancelledOrder"))},
        (*WRITING, 404),
        parameters=(in_path("order_id", _NAME),),
        body=json_body(bodies.CancelOrder) | {"required": False},
    ),
    Call(
        "POST",
        "/retractions",
        "retract",
        lambda api: api.alerts.retract,
        "Take an alert back, by its order or by its source and id; a repetition returns the same event",
        {200: answer("It is retracted, and that is on disk.", schema("RetractionBody"))},
        (*WRITING, 404),
        body=json_body(bodies.RetractionRequest),
    ),
    Call(
        "POST",
        "/read",
        "markRead",
        lambda api: api.alerts.mark_read,
        "Mark alerts as read: all up to a cursor, or single ones",
        {200: answer("The unread alerts of each channel now.", schema("UnreadBody"))},
        WRITING,
        body=json_body(bodies.ReadRequest),
    ),
    Call(
        "POST",
        "/unread",
        "countUnread",
        lambda api: api.alerts.unread,
        "Count the unread alerts of many channels, all from one snapshot",
        {200: answer("One count for each channel, in the order requested.", schema("UnreadBody"))},
        WRITING,
        body=json_body(bodies.UnreadRequest),
    ),
    Call(
        "GET",
        "/channels/{channel}/alerts",
        "listAlerts",
        lambda api: api.alerts.list_some,
        "A channel's alerts and their states, newest first, and the unread ones counted in the same snapshot",
        {200: answer("The alerts found.", schema("AlertsBody"))},
        ALWAYS,
        parameters=(in_path("channel", CHANNEL), *query(AlertsQuery)),
    ),
    Call(
        "POST",
        "/events",
        "postEvents",
        lambda api: api.events.post,
        "Record events of your own: CloudEvents over HTTP, structured, binary or in a batch",
        {202: answer("The result of each event, in order.", schema("EventResults"))},
        (*WRITING, 409),
        parameters=ce_headers(),
        body=events_body(),
    ),
    Call(
        "GET",
        "/channels/{channel}/events",
        "readChannel",
        lambda api: api.histories.of_channel,
        "A channel's events, oldest first",
        {200: answer("Events after the cursor.", schema("ChannelEvents"))},
        (*ALWAYS, 410),
        parameters=(in_path("channel", CHANNEL), *query(EventsQuery)),
    ),
    Call(
        "POST",
        "/history",
        "readHistory",
        lambda api: api.histories.of_many,
        "Events of many channels, all from one snapshot",
        {200: answer("One entry for each channel, in the order requested.", schema("HistoryBody"))},
        WRITING,
        body=json_body(bodies.HistoryRequest),
    ),
    Call(
        "POST",
        "/seen",
        "moveSeen",
        lambda api: api.customers.move_seen,
        "Add to what customers have seen; a report beyond the head or of another epoch is ignored",
        {200: answer("What each customer has seen now, in the order given.", schema("SeenBody"))},
        WRITING,
        body=json_body(bodies.SeenRequest),
    ),
    Call(
        "DELETE",
        "/customers/{customer_id}",
        "eraseCustomer",
        lambda api: api.customers.erase,
        "Erase all that names a customer, and end their connections; a repetition returns zeros",
        {200: answer("How much was erased.", schema("ErasedCustomer"))},
        (*ALWAYS, 507),
        parameters=(in_path("customer_id", _NAME),),
    ),
    Call(
        "POST",
        "/revocations",
        "revoke",
        lambda api: api.revocations.revoke,
        "Refuse a token by its jti, or a customer's tokens issued before a time (all until now, if absent)",
        {200: answer("Revoked; open connections end within a second.", schema("RevocationBody"))},
        WRITING,
        body=json_body(bodies.RevocationRequest),
    ),
    Call(
        "GET",
        "/revocations",
        "listRevocations",
        lambda api: api.revocations.list_some,
        "Revocations after a position, oldest first, for gateways",
        {200: answer("The revocations found.", schema("RevocationsBody"))},
        ALWAYS,
        parameters=query(RevocationsQuery),
    ),
    Call(
        "GET",
        "/dead-letters",
        "listDeadLetters",
        lambda api: api.operations.dead_letters,
        "Events that could not be published and were given up, newest first",
        {200: answer("The dead letters found.", schema("DeadLettersBody"))},
        ALWAYS,
        parameters=query(DeadLettersQuery),
    ),
    Call(
        "GET",
        "/trace",
        "trace",
        lambda api: api.support.trace,
        "What became of an order's alert, of an event, or of a customer's newest events, and why",
        {200: answer("What is known, from the database and from the gateways.", schema("TraceBody"))},
        ALWAYS,
        parameters=query(TraceQuery),
    ),
    Call(
        "GET",
        "/connections",
        "listConnections",
        lambda api: api.support.connections,
        "Who is connected, as the gateways report it now",
        {200: answer("A report of each gateway that hears Redis.", schema("ConnectionsBody"))},
        ALWAYS,
        parameters=query(ConnectionsQuery),
    ),
    Call(
        "POST",
        "/resends",
        "resend",
        lambda api: api.support.resend,
        "Send an alert again, as a new event that replaces it, so that every device shows it",
        {200: answer("It is recorded, and that is on disk.", schema("ResentBody"))},
        (*WRITING, 404, 409),
        body=json_body(bodies.ResendRequest),
    ),
    Call(
        "POST",
        "/trials",
        "tryOut",
        lambda api: api.support.try_out,
        "Send a customer's devices an event that changes nothing there; follow it with `GET /trace`",
        {200: answer("It is recorded, and that is on disk.", schema("TrialBody"))},
        WRITING,
        body=json_body(bodies.TrialRequest),
    ),
    _open(
        "/livez",
        "live",
        lambda api: api.operations.livez,
        "Whether the process is alive",
        {200: plain("It is alive.", OBJECT)},
    ),
    _open(
        "/readyz",
        "ready",
        lambda api: api.operations.readyz,
        "Whether the database takes writes, the relay is alive, and the names in Redis are ours",
        {200: plain("Ready.", OBJECT), 503: plain("Not ready, or draining.", OBJECT)},
    ),
    _open(
        "/metrics",
        "metrics",
        lambda api: api.operations.metrics,
        "Prometheus metrics",
        {200: plain("As text.", {"type": "string"}, media="text/plain")},
    ),
    _open("/openapi.json", "openapi", lambda api: _openapi, "This document", {200: plain("JSON.", OBJECT)}),
)

# Of ORDERBELL_SPRING_COMPAT alone; see shared/spring.py.
SPRING_CALLS = (
    Call(
        "POST",
        "/submit",
        "submit",
        lambda api: api.spring.submit,
        "Send a text to everybody at `/topic/messages`, as the article's Spring application does",
        {200: plain("What everybody gets.", {"type": "string"}, media="text/plain")},
        (400, 413, 415, 422, 503, 507),
        body=text_body(),
        keyed=False,
    ),
)
