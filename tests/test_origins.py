"""Which pages may connect: origins as people write them and as browsers send them, and texts that are
neither.
"""

from __future__ import annotations

import re

import pytest
from starlette.requests import HTTPConnection

from receiver.access.origins import Origins
from shared.origins import InvalidOrigin, parse_origin, parse_pattern

ALLOWED = [
    "https://shop.example",
    "http://Shop.Example:8080",
    "https://*.tenants.example",
    "https://büro.example",
]


def request(origin: str | None, host: str = "gateway.example", **headers: str) -> HTTPConnection:
    """A request as uvicorn passes it: the scheme is that of a trusted proxy's header."""
    given = {"host": host, **({"origin": origin} if origin is not None else {})}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    scheme = headers.get("x_forwarded_proto", "http")
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    return HTTPConnection({"type": "http", "scheme": scheme, "headers": raw})


@pytest.mark.parametrize(
    "origin",
    [
        None,  # no browser
        "https://shop.example",
        "https://shop.example:443",
        "http://shop.example:8080",
        "https://a.tenants.example",
        "https://a.b.tenants.example",
        "https://xn--bro-hoa.example",
        "https://gateway.example",  # our own, whichever scheme we have
        "http://gateway.example",
    ],
)
def test_origin_is_accepted(origin: str | None) -> None:
    assert Origins(ALLOWED).accept(request(origin))


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://shop.example",
        "https://shop.example:8443",
        "https://sub.shop.example",
        "https://evil-shop.example",
        "https://shop.example.evil.example",
        "https://shop.example@evil.example",
        "https://shop.example/",
        "https://tenants.example",
        "https://eviltenants.example",
        "http://a.tenants.example",
        "https://a.tenants.example:444",
        "https://a.tenants.example.evil.example",
        "https://gateway.example:8443",
        "https://" + "a" * 10_000,
        "http://[",
        "ftp://shop.example",
    ],
)
def test_origin_is_refused(origin: str) -> None:
    assert not Origins(ALLOWED).accept(request(origin))


def test_two_origins_are_refused() -> None:
    doubled = request("https://shop.example")
    doubled.scope["headers"].append((b"origin", b"https://shop.example"))
    assert not Origins(ALLOWED).accept(doubled)


@pytest.mark.parametrize(
    ("origin", "host", "accepted"),
    [
        ("https://name", "name:443", True),
        ("http://name", "name:80", True),
        ("http://name", "name:443", False),
        ("https://name", "NAME", True),
        ("https://name:8443", "name:8443", True),
        ("http://[::1]:8091", "[::1]:8091", True),
        ("https://name", "", False),
        ("https://name", "name:x", False),
    ],
)
def test_own_origin_is_compared_with_its_port(origin: str, host: str, accepted: bool) -> None:
    assert Origins([]).accept(request(origin, host)) is accepted


def test_own_origin_is_compared_with_its_scheme_where_a_proxy_has_said_it() -> None:
    origins = Origins([])
    assert origins.accept(request("https://name", "name", x_forwarded_proto="https"))
    assert not origins.accept(request("http://name", "name", x_forwarded_proto="https"))
    assert origins.accept(request("http://name", "name", x_forwarded_proto="http"))
    assert not origins.accept(request("https://name", "name", x_forwarded_proto="http"))


@pytest.mark.parametrize(
    "text",
    [
        *("https://*", "https://*.com", "https://*.1.2.3.4", "https://a.*.example", "https://*shop.example"),
        *("*://shop.example", "https://*.", "https://shop.example:0", "https://shop.example:99999"),
        *("https://a@b", "https://-.\N{SNOWMAN}\N{COMBINING ACUTE ACCENT}.example", "https://shop.example?"),
    ],
)
def test_setting_that_could_match_nothing_or_too_much_is_refused(text: str) -> None:
    with pytest.raises(InvalidOrigin):
        parse_pattern(text)


def test_cors_lets_the_same_pages_in() -> None:
    origins = Origins(ALLOWED)
    assert origins.exact == [
        "http://shop.example:8080",
        "https://shop.example",
        "https://xn--bro-hoa.example",
    ]
    regex = origins.regex
    assert regex is not None
    assert re.fullmatch(regex, "https://a.b.tenants.example")
    for foreign in (
        "https://tenants.example",
        "https://a.tenants.example.evil",
        "https://eviltenants.example",
    ):
        assert not re.fullmatch(regex, foreign)


def test_origin_is_printed_as_a_browser_sends_it() -> None:
    assert str(parse_origin("HTTPS://Shop.Example:443")) == "https://shop.example"
    assert str(parse_origin("http://h:443")) == "http://h:443"
