"""Tokens signed with a key that their issuer publishes, and those keys.

The known keys stay valid until the issuer has answered with others: while it is away, and while new keys are
being fetched, tokens with known keys are verified without waiting. An unknown key makes the gateway ask the
issuer at once, with one request for all tokens that wait. A flood of made-up keys uses up the few requests
that may follow each other (`Pace`); from then on the answer is "come back" and never "your token is bad",
which a page could take for final.

If the issuer answers anything but keys, or nothing in time, that is logged and the issuer asked again. Its
answer is read up to `MAX_BYTES`. Keys for encryption, symmetric keys and unusable ones are ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import httpx2
import jwt
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from receiver import metrics
from receiver.access.claims import check_length, header_of, verified_payload
from receiver.access.identity import ForbiddenToken, InvalidToken, KeysUnavailable
from receiver.access.reports import Reports
from shared import __version__
from shared.errors import NeighbourError
from shared.outbound import UnusableProxy, proxy_for
from shared.reasons import reason_of
from shared.redis.url import shown

if TYPE_CHECKING:
    from receiver.access.claims import Rules
    from receiver.access.identity import Identity

MAX_BYTES = 512 * 1024  # large issuers publish some 20 kB
MAX_KEYS = 100
_MIN_RSA_BITS = 2048  # RFC 7518 3.3
_OF_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_OF_CURVE = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA",)}
ALGORITHMS = frozenset((*_OF_RSA, *(name for names in _OF_CURVE.values() for name in names)))

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Pace:
    """Seconds."""

    answer: float = 4  # for the whole answer of the issuer
    keys: float = 5  # for a token to wait for its key
    refresh: float = 300  # between two looks at the issuer's keys, give or take a tenth
    retry: float = 1  # after a failure, twice as long after each
    max_retry: float = 10
    burst: int = 3  # requests for unknown keys that may follow each other at once …
    refill: float = 10  # … and how long it takes until there may be one more


class Key(NamedTuple):
    public: Any  # as cryptography has it
    algorithms: tuple[str, ...]  # that it may verify


class IssuerFailed(NeighbourError):
    """The issuer gave no keys; the message gives the reason."""


class KeySet:
    """The keys that an issuer publishes, kept fresh while this is entered."""

    def __init__(self, url: str, pace: Pace | None = None) -> None:
        self._url = url
        self._pace = pace or Pace()
        self._keys: dict[str, list[Key]] = {}
        self._failure: str | None = "the issuer's keys have not been fetched yet"
        self._fetching: asyncio.Task[None] | None = None
        self._fetched_at = float("-inf")  # when the newest fetch began
        self._budget = float(self._pace.burst)
        self._budget_at = time.monotonic()
        self._reports = Reports()
        self._client: httpx2.AsyncClient | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._client = httpx2.AsyncClient(
            headers={
                "user-agent": f"orderbell/{__version__}",  # some firewalls refuse a library's default
                "accept": "application/jwk-set+json, application/json",
                "accept-encoding": "identity",  # compressed, few bytes could become many
            },
            timeout=self._pace.answer,
            follow_redirects=True,
            max_redirects=3,
            proxy=self._proxy(),
            trust_env=False,
            verify=httpx2.create_ssl_context(),  # knows SSL_CERT_FILE, as the rest of the system does
        )
        self._refreshing = asyncio.create_task(self._keep_fresh())
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in filter(None, (self._refreshing, self._fetching)):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._client is not None:
            await self._client.aclose()

    async def try_now(self) -> str | None:
        """`unable`, once the fetch under way, or else a new one, has ended."""
        if self._fetching is None:
            self._start_fetch()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)
        return self.unable

    def _proxy(self) -> str | None:
        try:
            return proxy_for(self._url)
        except UnusableProxy as error:
            logger.warning("the issuer is asked without a proxy", reason=str(error))
            return None

    @property
    def unable(self) -> str | None:
        """Why no token can be verified; None if some can."""
        return None if self._keys else self._failure

    async def find(self, header: dict[str, Any]) -> list[Key]:
        """The keys that a token's header names, nearly always one. Raises `InvalidToken` or
        `KeysUnavailable`.
        """
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise ForbiddenToken("the token is not signed with RS256, ES256, EdDSA or the like")
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(self._pace.keys):
                while not (keys := self._known(header.get("kid"), algorithm)):
                    if self._fetching is None and self._fetched_at >= asked_at:
                        break
                    await self._join_fetch()
        except TimeoutError:
            raise KeysUnavailable("the issuer's keys cannot be fetched in time") from None
        if keys:
            return keys
        if self._failure:
            raise KeysUnavailable("the issuer's keys cannot be fetched")
        raise InvalidToken("the token's key is not one of its issuer's")

    def _known(self, kid: str | None, algorithm: str) -> list[Key]:
        """RFC 7517 4.5: several keys may have the same `kid`. For a token without one: the key, if it is the
        only one for its algorithm.
        """
        if kid is not None:
            return [key for key in self._keys.get(kid, ()) if algorithm in key.algorithms]
        fitting = [key for keys in self._keys.values() for key in keys if algorithm in key.algorithms]
        return fitting if len(fitting) == 1 else []

    async def _join_fetch(self) -> None:
        """The fetch under way, else a new one. Raises `KeysUnavailable` if it is too soon for another."""
        if self._fetching is None:
            self._spend()
            self._start_fetch()
        assert self._fetching is not None
        await asyncio.shield(self._fetching)

    def _spend(self) -> None:
        now = time.monotonic()
        refilled = self._budget + (now - self._budget_at) / self._pace.refill
        self._budget, self._budget_at = min(self._pace.burst, refilled), now
        if self._budget < 1:
            self._reports.warn(
                "tokens name many keys that their issuer does not publish", url=shown(self._url)
            )
            raise KeysUnavailable("the issuer's keys will be fetched again in a moment")
        self._budget -= 1

    def _start_fetch(self) -> None:
        self._fetched_at = time.monotonic()
        self._fetching = asyncio.create_task(self._fetch_once())

    async def _fetch_once(self) -> None:
        try:
            await self._fetch()
        finally:
            # Cleared before the task is done, not in a callback afterwards: waiting for a finished task gives
            # no other task a turn, so `find` would wait for it again and again, and the whole gateway would
            # stand still.
            self._fetching = None

    async def _keep_fresh(self) -> None:
        """Until cancelled."""
        retry = self._pace.retry
        while True:
            if self._fetching is None:
                self._start_fetch()
            if self._fetching is not None:
                await asyncio.shield(self._fetching)
            if self._failure is None:
                retry = self._pace.retry
                # A hundred gateways that were started together must not ask together for ever.
                await asyncio.sleep(self._pace.refresh * random.uniform(0.9, 1.1))
            else:
                await asyncio.sleep(retry)
                retry = min(retry * 2, self._pace.max_retry)

    async def _fetch(self) -> None:
        """The new keys, or the reason why there are none; raises nothing."""
        try:
            async with asyncio.timeout(self._pace.answer):
                keys = _parse(await self._read())
        except TimeoutError:
            self._fail(f"no answer within {self._pace.answer:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, IssuerFailed) as error:
            self._fail(reason_of(error))
        except Exception:  # of one answer; the next may differ
            logger.exception("the issuer's keys could not be read", url=shown(self._url))
            self._fail("its answer could not be read")
        else:
            if self._failure is not None:
                logger.info("the issuer's keys were fetched", url=shown(self._url), keys=sorted(keys))
            self._keys, self._failure = keys, None
            metrics.keys_fetched.set_to_current_time()

    def _fail(self, reason: str) -> None:
        metrics.keys_failures.inc()
        if self._failure is None or not self._keys:
            self._reports.warn(
                "the issuer's keys cannot be fetched",
                url=shown(self._url),
                reason=reason,
                keys=sorted(self._keys),
            )
        self._failure = f"{shown(self._url)}: {reason}"

    async def _read(self) -> bytes:
        assert self._client is not None, "it was not entered"
        body = bytearray()
        async with self._client.stream("GET", self._url) as response:
            # Also on the way: an answer over http could have named any other place.
            hops = [*response.history, response]
            if self._url.startswith("https:") and any(hop.url.scheme != "https" for hop in hops):
                raise IssuerFailed("it redirects from https to http")
            if response.status_code != 200:
                raise IssuerFailed(f"it answers {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise IssuerFailed("its answer is compressed, although we asked for identity")
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MAX_BYTES:
                    raise IssuerFailed(f"its answer has more than {MAX_BYTES} bytes")
        return bytes(body)


def _parse(body: bytes) -> dict[str, list[Key]]:
    """The usable keys by their ids. Raises `IssuerFailed`."""
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        raise IssuerFailed("its answer is not JSON") from None
    published = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(published, list):
        where = document.get("jwks_uri") if isinstance(document, dict) else None
        hint = f"; it names {where!r} for them" if isinstance(where, str) else ""
        raise IssuerFailed(f"its answer has no list `keys`{hint}"[:300])
    keys: dict[str, list[Key]] = {}
    for one in published[:MAX_KEYS]:
        if isinstance(one, dict) and (key := _usable(one)):
            kid = one.get("kid")
            keys.setdefault(kid if isinstance(kid, str) else "", []).append(key)
    if not keys:
        raise IssuerFailed("none of its keys verifies RS256, ES256, EdDSA or the like")
    return keys


def _usable(jwk: dict[str, Any]) -> Key | None:
    """A public key that verifies signatures by its `alg`, or without one by the algorithms for its type."""
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    fitting = _OF_RSA if jwk.get("kty") == "RSA" else _OF_CURVE.get(str(jwk.get("crv")), ())
    algorithms = tuple(name for name in fitting if jwk.get("alg") in (None, name))
    if not algorithms:
        return None
    public_members = {name: value for name, value in jwk.items() if name not in _PRIVATE}
    try:
        public = jwt.PyJWK(public_members, algorithms[0]).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size < _MIN_RSA_BITS:
        return None
    return Key(public, algorithms)


_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})  # an issuer that publishes them is beyond help


class JwksVerifier(contextlib.AbstractAsyncContextManager["JwksVerifier"]):
    """Tokens signed with a key that their issuer publishes. Works while it is entered."""

    def __init__(self, url: str, rules: Rules, pace: Pace | None = None) -> None:
        self._keys = KeySet(url, pace)
        self._rules = rules

    async def __aenter__(self) -> Self:
        await self._keys.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._keys.__aexit__(*exc)

    @property
    def unable(self) -> str | None:
        return self._keys.unable

    async def try_now(self) -> str | None:
        return await self._keys.try_now()

    async def verify(self, token: str) -> Identity:
        check_length(token)
        payload = _payload(token, await self._keys.find(header_of(token)))
        self._rules.check_type(token)
        return self._rules.identity(payload)


def _payload(token: str, keys: list[Key]) -> bytes:
    """The payload, if it is signed with one of the keys. Raises `InvalidToken`."""
    *others, last = keys
    for key in others:
        with contextlib.suppress(InvalidToken):
            return verified_payload(token, key.public, key.algorithms)
    return verified_payload(token, last.public, last.algorithms)
