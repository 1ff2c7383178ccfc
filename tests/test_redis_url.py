"""What a URL names, and the fault of one that names nothing."""

from __future__ import annotations

import pytest
from redis.asyncio import SSLConnection
from redis.asyncio.connection import parse_url

from shared.redis.url import Address, InvalidRedisUrl, Kind, check_redis_url, parse_redis_url, shown
from tests.certificates import Certificates


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", {"host": "h", "port": 6379, "db": 0}),
        ("redis://h:1/", {"host": "h", "port": 1, "db": 0}),
        ("redis://us%40er:p%2Fw@h:1/3", {"username": "us@er", "password": "p/w", "port": 1, "db": 3}),
        ("redis://:p@h?db=2", {"password": "p", "db": 2}),
        ("rediss://[::1]:7", {"host": "::1", "port": 7, "connection_class": SSLConnection}),
        ("unix:///run/r.sock?db=4", {"path": "/run/r.sock", "db": 4}),
        ("unix://u:p@/run/r.sock", {"username": "u", "password": "p", "path": "/run/r.sock", "db": 0}),
        ("valkey://h:1/3", {"host": "h", "port": 1, "db": 3}),
        ("valkeys://h", {"host": "h", "connection_class": SSLConnection}),
        (" redis://h/1\n", {"host": "h", "db": 1}),
        (
            "rediss://h?ssl_cert_reqs=CERT_NONE&ssl_min_version=TLSv1.3&ssl_check_hostname=false",
            {"ssl_cert_reqs": "none", "ssl_min_version": 772, "ssl_check_hostname": False},
        ),
        ("redis://h?socket_timeout=1.5", {"socket_timeout": 1.5}),
    ],
)
def test_one_server_is_what_redis_py_is_given(url: str, expected: dict[str, object]) -> None:
    parsed = parse_redis_url(url)
    given = {**parse_url(parsed.server())}
    assert parsed.kind is Kind.SERVER
    assert {name: given.get(name) for name in expected} == expected
    assert parsed.db == given["db"]


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


def test_servers_password_is_not_sent_to_sentinels() -> None:
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
        ("h:6379", ["expected redis://"]),
        ("redis:h", ["expected redis://"]),
        ("https+redis://h", ["expected redis://"]),
        ("unix+cluster:///run/r.sock", ["expected redis://"]),
        ("redis+://h", ["expected redis://"]),
        ("redis://h:0", ["the port 0"]),
        ("redis://h:x", ["1 to 65535"]),
        ("redis://h:65536", ["1 to 65535"]),
        ("redis://[::1", ["not an address"]),
        ("redis://h/abc", ["not a database number"]),
        ("redis://h/1/2", ["not a database number"]),
        ("redis://h/-1", ["not a database number"]),
        ("redis://h/\u0663", ["not a database number"]),
        ("redis://h?db=x", ["not a database number"]),
        ("redis://h/1?db=2", ["two database numbers"]),
        ("redis://h h", ["a space"]),
        ("redis://a,b", ["several hosts need redis+sentinel://"]),
        ("redis://h?timeout=1", ["no such option: timeout", "ssl_ca_certs"]),
        ("redis://h?ssl=true", ["no such option: ssl", "rediss:// in place of redis://"]),
        ("redis://h?protocol=3&decode_responses=true", ["option: protocol", "option: decode_responses"]),
        ("redis://h?ssl_ca_certs=/ca.pem", ["ssl_ca_certs needs rediss://"]),
        ("rediss://h?ssl_cert_reqs=maybe", ["ssl_cert_reqs must be one of required"]),
        ("rediss://h?ssl_check_hostname=perhaps", ["ssl_check_hostname must be one of true"]),
        ("rediss://h?ssl_min_version=1", ["ssl_min_version must be one of tlsv1.2"]),
        ("rediss://h?ssl_keyfile=/k.pem", ["ssl_keyfile needs ssl_certfile"]),
        ("rediss://h?ssl_ca_certs=", ["ssl_ca_certs is empty"]),
        ("redis://h?socket_timeout=soon", ["socket_timeout must be a number of seconds"]),
        ("redis://h?socket_timeout=nan", ["socket_timeout must be a number of seconds"]),
        ("redis://h?socket_timeout=1&socket_timeout=2", ["set twice"]),
        ("redis://h?sentinel_password=p", ["a single server has no sentinels"]),
        ("unix://run/r.sock", ["three slashes"]),
        ("unix:///run/r.sock?db=x", ["not a database number"]),
        ("redis+sentinel://", ["the host is missing", "the service is missing"]),
        ("redis+sentinel://a/s/x", ["not a database number"]),
        (
            "redis+sentinel://a,:1,b:x/s",
            ["host 2 of 3 is missing", "host 3 of 3 is not an address, or its port"],
        ),
        ("redis+sentinel://a/s?sentinel_user=u", ["needs sentinel_password"]),
        ("redis+sentinel://a/s?timeout=1", ["no such option: timeout"]),
        ("redis+cluster://a,/3?x=1", ["host 2 of 2", "database 0 alone", "no such option: x"]),
        ("redis+cluster://a?sentinel_password=p", ["a cluster has no sentinels"]),
    ],
)
def test_every_fault_of_a_url_is_reported_at_once(url: str, faults: list[str]) -> None:
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


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


def test_certificates_and_keys_are_tried_before_anything_starts(certificates: Certificates) -> None:
    c = certificates
    check_redis_url(f"rediss://h?{c.options}")
    check_redis_url("redis://h")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("ssl_ca_certs=/missing.pem", "ssl_ca_certs: cannot read /missing.pem: No such file"),
        ("ssl_ca_certs={key}", "ssl_ca_certs, ssl_ca_path: not a certificate authority's"),
        ("ssl_certfile={cert}&ssl_keyfile=/missing.pem", "ssl_keyfile: cannot read"),
        ("ssl_certfile={cert}&ssl_keyfile={ca}", "not a certificate and its key"),
        ("ssl_certfile={cert}", "not a certificate and its key"),
        ("ssl_certfile={cert}&ssl_keyfile={locked}", "ssl_password does not open it"),
        ("ssl_certfile={cert}&ssl_keyfile={locked}&ssl_password=hush-hush", "ssl_password does not open it"),
    ],
)
def test_certificates_that_cannot_be_used_are_one_line(
    certificates: Certificates, options: str, fault: str
) -> None:
    c = certificates
    url = options.format(ca=c.ca, cert=c.client_cert, key=c.client_key, locked=c.locked_key)
    with pytest.raises(InvalidRedisUrl) as caught:
        check_redis_url(f"rediss://h?{url}")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


def test_key_with_a_password_is_opened(certificates: Certificates) -> None:
    c = certificates
    check_redis_url(
        f"rediss://h?ssl_certfile={c.client_cert}&ssl_keyfile={c.locked_key}&ssl_password={c.PASSWORD}"
    )


def test_what_is_shown_has_no_password() -> None:
    assert shown("redis://u:hush@h:1/0?x=hush") == "redis://h:1/0"
    assert shown("redis+sentinel://:hush@a,b/s?sentinel_password=hush") == "redis+sentinel://a,b/s"
    assert shown("redis://:hu/sh@h/0") == "redis://h/0"
    assert shown("redis://:hu?sh@h/0") == "redis://…"
    assert str(parse_redis_url("redis+cluster://:hush@a")) == "redis+cluster://a"
