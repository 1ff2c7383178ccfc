"""Development mode: sign in by name alone, and orders placed for the customer signed in. Loopback only.

None of these routes exists otherwise: an application signs its customers in itself, and gives their
browsers a token that its gateways can verify.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx2
import msgspec
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from receiver.access.authentication import HOST_PREFIX
from receiver.access.identity import InvalidToken
from receiver.pages.client import FOLDER
from shared.channels import is_name
from shared.loopback import host_of, is_loopback
from shared.pages import HEADERS
from shared.problems import Problem, unauthenticated
from shared.tokens import ClaimNames, mint_token

if TYPE_CHECKING:
    from starlette.requests import Request

    from receiver.access.authentication import Authentication
    from shared.settings import ReceiverSettings

_LIFETIME_SECONDS = 12 * 3600


class Development:
    def __init__(
        self, settings: ReceiverSettings, authentication: Authentication, sender: httpx2.AsyncClient
    ) -> None:
        self._secret = settings.secrets[0]  # settings without a secret are refused
        self._settings = settings
        self._authentication = authentication
        self._sender = sender

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/development/session", self.session),
            Route("/development/sign-in", self.sign_in, methods=["POST"]),
            Route("/development/sign-out", self.sign_out, methods=["POST"]),
            Route("/development/orders", self.orders, methods=["GET", "POST"]),
            Route("/development/orders/complete", self.complete, methods=["POST"]),
            Route("/development/compare", self.compare),
        ]

    async def sign_in(self, request: Request) -> Response:
        _check_host(request)
        customer = (await _json_object(request)).get("customer")
        if not isinstance(customer, str) or not is_name(customer):
            raise Problem(
                400, "bad-customer", "customer must be 1 to 128 characters without control characters"
            )
        token = mint_token(
            self._secret,
            customer,
            audience=self._settings.jwt_audiences[0],
            issuer=self._settings.jwt_issuer,
            names=ClaimNames.of(self._settings),
            lifetime_seconds=_LIFETIME_SECONDS,
        )
        response = JSONResponse({"customer": customer})
        name, secure = self._cookie(request)
        response.set_cookie(
            name, token, max_age=_LIFETIME_SECONDS, httponly=True, samesite="strict", secure=secure
        )
        return response

    def _cookie(self, request: Request) -> tuple[str, bool]:
        """The cookie's name, and whether it is for TLS alone, as a `__Host-` cookie must be."""
        secure = request.url.scheme == "https"
        return (HOST_PREFIX if secure else "") + self._settings.jwt_cookie, secure

    async def session(self, request: Request) -> Response:
        """The customer who is signed in, or null: an error status would show up in the browser's console."""
        _check_host(request)
        try:
            identity = await self._authentication.identify_same_site(request)
        except InvalidToken:
            return JSONResponse({"customer": None}, headers={"cache-control": "no-store"})
        return JSONResponse({"customer": identity.customer}, headers={"cache-control": "no-store"})

    async def sign_out(self, request: Request) -> Response:
        _check_host(request)
        response = Response(status_code=204)
        name, secure = self._cookie(request)
        response.delete_cookie(name, httponly=True, samesite="strict", secure=secure)
        return response

    async def orders(self, request: Request) -> Response:
        _check_host(request)
        try:
            identity = await self._authentication.identify_same_site(request)
        except InvalidToken as error:
            raise unauthenticated(str(error)) from None
        if request.method == "GET":
            return await self._ask("GET", params={"customer_id": identity.customer})
        order = await _json_object(request)
        return await self._ask(
            "POST", content=msgspec.json.encode({**order, "customer_id": identity.customer})
        )

    async def complete(self, request: Request) -> Response:
        """Place an order of the signed-in customer and complete it at once, for the page that compares
        transports.
        """
        placed = await self.orders(request)
        if placed.status_code not in (200, 201):
            return placed
        order_id = msgspec.json.decode(placed.body, type=_Order).order_id
        return await self._ask("POST", f"/orders/{quote(order_id, safe='')}/complete")

    async def compare(self, request: Request) -> Response:
        """The page that shows the transports side by side."""
        _check_host(request)
        return HTMLResponse((FOLDER / "compare.html").read_text(encoding="utf-8"), headers=HEADERS)

    async def _ask(self, method: str, path: str = "/orders", **arguments: Any) -> Response:
        headers = {"content-type": "application/json"}
        try:
            answer = await self._sender.request(method, path, headers=headers, **arguments)
        except httpx2.HTTPError:
            raise Problem(502, "sender-unavailable", "The sender does not answer.") from None
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


class _Order(msgspec.Struct):
    order_id: str


def _check_host(request: Request) -> None:
    """Another site's name must not resolve to here: its pages would count as ours (DNS rebinding)."""
    if not is_loopback(host_of(request.headers.get("host", ""))):
        raise Problem(403, "foreign-host", "Development mode answers on loopback names only.")


async def _json_object(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise Problem(415, "unsupported-media-type", "Send application/json.")
    try:
        return msgspec.json.decode(await request.body(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem(400, "invalid-body", "Send a JSON object.") from None
