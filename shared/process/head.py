"""A request's head: parsed, checked, and brought into the one form that the rest of the edge reads."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools

from shared.errors import CallerError
from shared.process.forwarded import Peer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*)(.*)")

# Each member of a list costs its readers as much as a small request: 30 kB of commas in Accept took 50 ms.
MAX_MEMBERS = 256  # of a list in one header with their parameters, and parameters of a query; also cookies
MAX_ESCAPES = 4096  # percent-encoded bytes of a target: 100 cursors of 20 letters, encoded twice
MAX_PATH = 8 * 1024  # bytes; two names of 128 characters have 3 kB

_HOP = frozenset({b"upgrade", b"http2-settings"})

Header = tuple[bytes, bytes]


class Head:
    """A request's head. `headers` have lower-case names, and each line stays where it came.

    Only `on_header` and `replace_headers` change them.
    """

    __slots__ = (
        "_values",
        "headers",
        "method",
        "padded",
        "path",
        "peer",
        "query",
        "target",
        "upgrade",
        "version",
    )

    def __init__(self) -> None:
        self.method = ""
        self.version = ""
        self.target = b""  # in origin-form (path and query), whatever form it came in
        self.path = b""
        self.query = b""
        self.headers: list[Header] = []
        self._values: dict[bytes, list[bytes]] = {}  # the same by name, which is asked for a dozen times
        self.padded = False  # white space came behind a value
        self.upgrade: frozenset[bytes] = frozenset()  # the protocols that the client asks for, in lower case
        self.peer = Peer("", 0, "http")

    # What httptools calls while it parses.

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if value.endswith((b" ", b"\t")):  # not part of the value, RFC 9112 5.1; httptools leaves it there
            value = value.rstrip(b" \t")
            self.padded = True
        name = name.lower()
        self.headers.append((name, value))
        self._values.setdefault(name, []).append(value)

    def replace_headers(self, headers: Iterable[Header]) -> None:
        self.headers, self._values = [], {}
        for name, value in headers:
            self.headers.append((name, value))
            self._values.setdefault(name, []).append(value)

    def values(self, name: bytes) -> Sequence[bytes]:
        return self._values.get(name, ())

    def tokens(self, name: bytes) -> list[bytes]:
        """The members of a header that is a list, as they came."""
        parts = [part.strip(b" \t") for value in self.values(name) for part in value.split(b",")]
        return [part for part in parts if part]

    def scope(self) -> dict[str, Any]:
        """An ASGI HTTP scope, for code that reads headers, cookies and queries from one."""
        return {
            "type": "http",
            "http_version": self.version,
            "method": self.method,
            "scheme": self.peer.scheme,
            "path": unquote(self.path.decode("latin-1")),
            "raw_path": self.path,
            "query_string": self.query,
            "root_path": "",
            "headers": self.headers,
            "client": (self.peer.host, self.peer.port),
            "server": None,
        }


# The kinds of what the edge refuses, here and in edge.py and framing.py.
REFUSALS = (
    *(
        "bad-request",
        "bad-host",
        "bad-body",
        "http-version",
        "transfer-coding",
        "no-proxy",
        "head-too-large",
        "content-too-large",
    ),
    *("slow-head", "slow-body", "stalled-answer", "too-many-connections", "leaving", "overloaded"),
)


class RequestRefused(CallerError):
    """A request that the edge refuses; `kind` is counted, and is the last part of the problem's type."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind


def parse_head(raw: bytes) -> Head:
    """Raises `RequestRefused`."""
    head = Head()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        raise RequestRefused(400, "bad-request", "The request's head does not conform to RFC 9112.") from None
    # The whole head first, because most requests have few of all of these.
    if (
        raw.count(b",") + raw.count(b";") >= MAX_MEMBERS
        or raw.count(b"&") >= MAX_MEMBERS
        or raw.count(b"%") > MAX_ESCAPES
    ):
        _check_amounts(head)
    head.method = parser.get_method().decode()
    head.version = parser.get_http_version()
    if head.version not in ("1.0", "1.1"):
        raise RequestRefused(505, "http-version", "Use HTTP/1.1.")
    if head.method == "CONNECT":
        raise RequestRefused(501, "no-proxy", "This is not a proxy.")
    if head.values(b"upgrade") and b"upgrade" in lower(head.tokens(b"connection")):
        head.upgrade = lower(head.tokens(b"upgrade")) or frozenset({b""})
    return head


def _check_amounts(head: Head) -> None:
    """Raises `RequestRefused` for more than anybody means to send."""
    separators: Counter[bytes] = Counter()
    for name, value in head.headers:
        # A cookie of another program may hold any number of commas.
        separators[name] += value.count(b";") + (0 if name == b"cookie" else value.count(b","))
    if max(separators.values(), default=0) >= MAX_MEMBERS:
        raise RequestRefused(431, "head-too-large", f"A header lists at most {MAX_MEMBERS} members.")
    if head.target.count(b"&") >= MAX_MEMBERS:
        raise RequestRefused(414, "head-too-large", f"A query has at most {MAX_MEMBERS} parameters.")
    if head.target.count(b"%") > MAX_ESCAPES:
        raise RequestRefused(414, "head-too-large", f"A target has at most {MAX_ESCAPES} escapes.")


def end_of_head(data: bytes) -> int:
    """Where the first empty line ends; 0 if there is none yet. Bare line ends are found, too, and refused."""
    ends = [at + len(end) for end in (b"\n\r\n", b"\n\n") if (at := data.find(end)) >= 0]
    return min(ends, default=0)


def check_fields(head: Head) -> None:
    """RFC 9112 3.2, and RFC 9110 5.3: of two credentials, a proxy might have checked the other one."""
    if len(head.values(b"authorization")) > 1:
        raise RequestRefused(400, "bad-request", "A request has one Authorization at most.")
    hosts = head.values(b"host")
    if len(hosts) > 1 or (not hosts and head.version == "1.1"):
        raise RequestRefused(400, "bad-host", "A request must have exactly one Host.")
    if hosts and not _AUTHORITY.fullmatch(hosts[0]):
        raise RequestRefused(400, "bad-host", "Host is not a name and a port.")


def normalise(head: Head, root_path: bytes) -> bool:
    """Bring the target into origin-form, without the root path. Returns whether the head differs now."""
    given = head.target
    if b"#" in given:
        raise RequestRefused(400, "bad-request", "A request's target has no fragment (RFC 9112 3.2).")
    if not given.startswith((b"/", b"*")):
        match = _ABSOLUTE.fullmatch(given)
        if match is None or not _AUTHORITY.fullmatch(match[1]) or not match[1]:
            raise RequestRefused(400, "bad-request", "The request's target does not conform to RFC 9112 3.2.")
        rest = match[2]
        head.target = rest if rest.startswith(b"/") else b"/" + rest
        # RFC 9112 3.2.2: the target's host counts, whatever Host is.
        others = [(name, value) for name, value in head.headers if name != b"host"]
        head.replace_headers([(b"host", match[1]), *others])
    head.path, _, head.query = head.target.partition(b"?")
    if len(head.path) > MAX_PATH:
        raise RequestRefused(414, "head-too-large", f"A path has at most {MAX_PATH} bytes.")
    if root_path and (head.path == root_path or head.path.startswith(root_path + b"/")):
        head.path = head.path[len(root_path) :]
        head.target = head.target[len(root_path) :]
    return head.padded or head.target != given


def is_last(head: Head | None) -> bool:
    """Whether the connection ends with the answer to this request."""
    if head is None or head.version == "1.0":
        return True
    return b"close" in lower(head.tokens(b"connection"))


def strip_upgrade(head: Head) -> None:
    kept = [token for token in head.tokens(b"connection") if token.lower() not in _HOP]
    others = [(name, value) for name, value in head.headers if name not in _HOP and name != b"connection"]
    head.replace_headers(others + ([(b"connection", b", ".join(kept))] if kept else []))
    head.upgrade = frozenset()


def close_after(head: Head) -> None:
    others = [(name, value) for name, value in head.headers if name != b"connection"]
    head.replace_headers([*others, (b"connection", b"close")])


def format_head(head: Head) -> bytes:
    lines = [b"%b %b HTTP/%b" % (head.method.encode(), head.target, head.version.encode())]
    lines += [name + b": " + value for name, value in head.headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def first_value(headers: Iterable[Header], name: bytes) -> str:
    """Of an ASGI scope, without the object that starlette makes for each request; empty if there is none."""
    return next((value for other, value in headers if other == name), b"").decode("latin-1")


def lower(tokens: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(map(bytes.lower, tokens))
