"""What a URL names, and what is wrong with one that names nothing."""

from __future__ import annotations

import pytest
from redis.asyncio.connection import parse_url

from shared.redis.url import Address, InvalidRedisUrl, Kind, parse_redis_url, shown


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://u:p@h:1/3", "rediss://[::1]:7", "unix:///run/r.sock", "redis://h?db=2"]
)
def test_one_server_is_left_to_redis_py(url: str) -> None:
    parsed = parse_redis_url(url)
    assert (parsed.kind, parsed.text) == (Kind.SERVER, url)


def test_sentinels_have_their_port_and_their_own_password() -> None:
    url = parse_redis_url(
        "rediss+sentinel://us%40er:p%2Fw@a,[::1]:7,c:26380/orders/3"
        "?sentinel_user=watch&sentinel_password=a%40b&ssl_ca_certs=%2Fca.pem"
    )
    assert url.kind is Kind.SENTINEL
    assert url.addresses == (Address("a", 26379), Address("::1", 7), Address("c", 26380))
    assert (url.service, url.db, url.tls) == ("orders", 3, True)
    server = {**parse_url(url.server(Address("::1", 6379)))}
    assert (server["username"], server["password"], server["db"]) == ("us@er", "p/w", 3)
    assert (server["host"], server["port"], server["ssl_ca_certs"]) == ("::1", 6379, "/ca.pem")
    sentinel = parse_url(url.sentinel(url.addresses[0]))
    assert (sentinel["username"], sentinel["password"]) == ("watch", "a@b")
    assert "db" not in sentinel


def test_servers_password_is_not_told_to_sentinels() -> None:
    url = parse_redis_url("redis+sentinel://:secret@a/orders")
    assert "secret" in url.server(Address("b", 1))
    assert "secret" not in url.sentinel(url.addresses[0])


@pytest.mark.parametrize("end", ["", "/", "/0"])
def test_cluster_is_some_of_its_nodes(end: str) -> None:
    url = parse_redis_url(f"redis+cluster://:pw@a,b:7000{end}")
    assert url.kind is Kind.CLUSTER
    assert url.addresses == (Address("a", 6379), Address("b", 7000))
    assert url.server(url.addresses[1]) == "redis://:pw@b:7000/0"


@pytest.mark.parametrize(
    ("url", "faults"),
    [
        ("http://h", ["expected redis://"]),
        ("redis+ring://h", ["expected redis://"]),
        ("redis://", ["the host is missing"]),
        ("redis://h:0", ["no port"]),
        ("redis://h:x", ["no port"]),
        ("redis://[::1", ["no address"]),
        ("redis+sentinel://", ["the host is missing", "the service is missing"]),
        ("redis+sentinel://a/s/x", ["'x' is no number"]),
        ("redis+sentinel://a,:1,b:x/s", ["host 2 of 3 is missing", "host 3 of 3 has no port"]),
        ("redis+sentinel://a/s?sentinel_user=u", ["needs sentinel_password"]),
        ("redis+sentinel://a/s?timeout=1", ["no such option: timeout"]),
        ("redis+cluster://a,/3?x=1", ["host 2 of 2", "database 0 alone", "no such option: x"]),
        ("redis+cluster://a?sentinel_password=p", ["a cluster has no sentinels"]),
    ],
)
def test_every_fault_of_a_url_is_told_at_once(url: str, faults: list[str]) -> None:
    with pytest.raises(InvalidRedisUrl) as caught:
        parse_redis_url(url)
    assert [fault for fault in faults if fault not in str(caught.value)] == []


@pytest.mark.parametrize("password", ["hush/hush", "hush?hush", "hush#hush", "hush:hush", "hush,hush"])
@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
def test_password_that_was_not_encoded_is_never_quoted(scheme: str, password: str) -> None:
    try:
        parse_redis_url(f"{scheme}://:{password}@h:1/orders?")
    except InvalidRedisUrl as error:
        assert "hush" not in str(error)  # noqa: PT017 - some of them are no fault


def test_what_is_shown_has_no_password() -> None:
    assert shown("redis://u:hush@h:1/0?x=hush") == "redis://h:1/0"
    assert shown("redis+sentinel://:hush@a,b/s?sentinel_password=hush") == "redis+sentinel://a,b/s"
    assert shown("redis://:hu/sh@h/0") == "redis://h/0"
    assert shown("redis://:hu?sh@h/0") == "redis://…"
    assert str(parse_redis_url("redis+cluster://:hush@a")) == "redis+cluster://a"
