"""The targets: each parser of input from outside, and the properties that must hold for any input.

A target gets bytes. It may return or refuse them as its module says; anything else is a finding: another
exception, an `AssertionError` of the properties below, or a time-out.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from websockets.protocol import SERVER, State
from websockets.protocol import Protocol as Parser

from receiver.access.claims import Rules, header_of
from receiver.access.identity import InvalidToken
from receiver.connections.messages import BadMessage, SeenReport, parse_message
from receiver.transports.stomp.envelope import SockJs
from receiver.transports.stomp.frames import InvalidFrame
from receiver.transports.stomp.frames import Parser as StompParser
from receiver.transports.stomp.session import FrameRefused, Session
from receiver.transports.websocket.frames import frame_size
from sender.http.binding import binary_event, media_type
from shared.channels import InvalidChannel, customer_channel, is_name, name_in, parse_channel
from shared.cursors import InvalidCursor, Place, format_cursors, parse_after, parse_cursors
from shared.database_url import InvalidDatabaseUrl, PostgresUrl, parse_database_url
from shared.events import MAX_EVENT_BYTES, InvalidEvent, parse_event
from shared.extents import MAX_RANGES, parse_seen
from shared.json import InvalidJson, canonical_json, parse_json
from shared.origins import InvalidOrigin, parse_origin, parse_pattern
from shared.problems import Problem
from shared.process.forwarded import Proxies
from shared.process.framing import Chunked, InvalidBody
from shared.process.head import RequestRefused, check_fields, normalise, parse_head
from shared.redis.inquiries import parse_answer, parse_question
from shared.redis.live import parse_live
from shared.redis.url import InvalidRedisUrl, parse_redis_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOW = datetime(2026, 11, 23, 14, 25, tzinfo=UTC)
_RULES = Rules()
_PROXIES = Proxies(["127.0.0.1", "10.0.0.0/8"])


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _pieces(data: bytes) -> Iterator[bytes]:
    """Cut where the data says: each piece is as long as the byte before it, and a little more."""
    at = 0
    while at < len(data):
        size = 1 + data[at] % 17
        yield data[at : at + size]
        at += size


def head(data: bytes) -> None:
    with contextlib.suppress(RequestRefused):
        parsed = parse_head(data)
        check_fields(parsed)
        normalise(parsed, b"/shop")
        assert parsed.path.startswith((b"/", b"*")) or not parsed.path, parsed.path
        assert b"\r" not in parsed.target + b"".join(value for _, value in parsed.headers)
        assert b"\n" not in parsed.target + b"".join(value for _, value in parsed.headers)
        parsed.scope()


def body(data: bytes) -> None:
    """Chunks have the same meaning however they are cut."""

    def read(pieces: Iterator[bytes]) -> tuple[int, bool] | None:
        chunked, taken = Chunked(), 0
        try:
            for piece in pieces:
                took = chunked.take(piece)
                assert 0 <= took <= len(piece)
                taken += took
                if chunked.done:
                    break
                assert took == len(piece)
        except InvalidBody:
            return None
        return taken, chunked.done

    assert read(iter([data])) == read(_pieces(data))


def websocket_frames(data: bytes) -> None:
    """A frame ends for us where it ends for the library."""
    size = frame_size(data, 0)
    if size is None or size > len(data):
        return
    parser = Parser(SERVER, state=State.OPEN, max_size=16 * 1024)
    parser.receive_data(data[: size - 1])
    assert not parser.events_received()
    if parser.parser_exc is None:
        parser.receive_data(data[size - 1 : size])
        assert len(parser.events_received()) == 1 or parser.parser_exc is not None


def websocket_messages(data: bytes) -> None:
    with contextlib.suppress(BadMessage, InvalidCursor):
        message = parse_message(data)
        if isinstance(message, SeenReport):
            for seen in message.parse():
                assert parse_seen(str(seen)) == seen


def stomp(data: bytes) -> None:
    """Frames are the same however their bytes are cut, and no sequence of them breaks a session."""

    def read(pieces: Iterator[bytes]) -> tuple[list[str], bool]:
        parser, session, found = StompParser(), Session(), []
        try:
            for piece in pieces:
                for frame in parser.feed(piece):
                    found.append(repr(frame))
                    session.take(frame)
                    parser.version = session.version
                    assert len(session.subscriptions) <= 100
        except (InvalidFrame, FrameRefused):
            return found, True
        return found, False

    assert read(iter([data])) == read(_pieces(data))


def sockjs(data: bytes) -> None:
    with contextlib.suppress(InvalidFrame):
        parser = StompParser()
        for message in SockJs().unwrap(data):
            list(parser.feed(message))


def cursors(data: bytes) -> None:
    text = _text(data)
    with contextlib.suppress(InvalidCursor):
        places = parse_cursors(text)
        assert parse_cursors(format_cursors(places)) == places
        assert format_cursors(places) == text
    with contextlib.suppress(InvalidCursor):
        parse_after(text)


def extents(data: bytes) -> None:
    one, _, other = _text(data).partition("|")
    with contextlib.suppress(InvalidCursor):
        seen = parse_seen(one)
        assert parse_seen(str(seen)) == seen
        assert len(seen.extent.beyond) <= MAX_RANGES
        assert seen.extent.union(seen.extent) == seen.extent
        second = parse_seen(other).extent
        both = seen.extent.union(second)
        if len(both.beyond) < MAX_RANGES:
            assert both == second.union(seen.extent)
        if both.place.epoch == seen.extent.place.epoch:
            for part in seen.extent.beyond[-MAX_RANGES // 4 :]:
                assert Place(both.place.epoch, part.last) in both


def channels(data: bytes) -> None:
    text = _text(data)
    with contextlib.suppress(InvalidChannel):
        channel = parse_channel(text)
        name = name_in(channel)
        assert is_name(name), name
        assert channel in (f"customer:{_encoded(name)}", f"topic:{_encoded(name)}"), (channel, name)


def _encoded(name: str) -> str:
    return customer_channel(name).removeprefix("customer:")


def cloud_events(data: bytes) -> None:
    with contextlib.suppress(InvalidJson, InvalidEvent):
        value = parse_json(data)
        assert parse_json(canonical_json(value)) == value
        for one in value if isinstance(value, list) else [value]:
            text = parse_event(one, now=NOW).text(Place(1, 2))
            assert len(text) <= MAX_EVENT_BYTES
            assert parse_json(text)["seq"] == 2


def cloud_events_binary(data: bytes) -> None:
    lines, _, content = data.partition(b"\n\n")
    pairs = [line.partition(b":")[::2] for line in lines.split(b"\n")]
    headers = Headers(raw=[(name.lower(), value) for name, value in pairs])
    with contextlib.suppress(InvalidEvent, InvalidJson, Problem):
        parse_event(binary_event(headers, media_type(headers), content), now=NOW)


def urls(data: bytes) -> None:
    text = data.decode(errors="replace")  # settings take nothing but UTF-8
    with contextlib.suppress(InvalidDatabaseUrl):
        database = parse_database_url(text)
        if isinstance(database, PostgresUrl):
            str(database)
    with contextlib.suppress(InvalidRedisUrl):
        str(parse_redis_url(text))
    with contextlib.suppress(InvalidOrigin):
        origin = parse_origin(text)
        assert parse_origin(str(origin)) == origin
    with contextlib.suppress(InvalidOrigin):
        parse_pattern(text)


def forwarded(data: bytes) -> None:
    peer = _PROXIES.peer("127.0.0.1", 1, [(b"x-forwarded-for", data), (b"x-forwarded-proto", data)])
    assert peer.scheme in ("http", "https")


def tokens(data: bytes) -> None:
    with contextlib.suppress(InvalidToken):
        _RULES.identity(data)
    with contextlib.suppress(InvalidToken):
        header_of(_text(data))


def redis_messages(data: bytes) -> None:
    parse_live(data)
    parse_question(data)
    parse_answer(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__.replace("_", "-"): target
    for target in (
        head,
        body,
        websocket_frames,
        websocket_messages,
        stomp,
        sockjs,
        cursors,
        extents,
        channels,
        cloud_events,
        cloud_events_binary,
        urls,
        forwarded,
        tokens,
        redis_messages,
    )
}

SEEDS: dict[str, list[bytes]] = {
    "head": [
        b"GET /events?after=customer:a=1.2 HTTP/1.1\r\nHost: a:80\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\n\r\n",
        b"POST http://a.example/shop/tickets HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    "body": [b"5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n"],
    "websocket-frames": [
        b"\x81\x85\0\0\0\0hello",
        b"\x81\xfe\0\x7e\0\0\0\0" + b"x" * 126,
        b"\x88\x82\0\0\0\0\x03\xe8",
        b"\x01\x80\0\0\0\0",
    ],
    "websocket-messages": [
        b'{"type":"orderbell.seen","data":{"cursor":"customer:a=1.2+4+6-8"}}',
        b'{"type":"orderbell.auth","data":{"token":"x","ticket":"y"}}',
        b'{"type":"orderbell.read","data":{"cursor":"customer:a=1.2","ids":["a"],"all":true}}',
        b'{"type":"orderbell.ping","data":{"visible":false}}',
    ],
    "stomp": [
        b"CONNECT\naccept-version:1.1,1.2\nheart-beat:0,0\npasscode:x\n\n\0"
        b"SUBSCRIBE\nid:1\ndestination:/topic/a\nack:client\nafter:1.2\n\n\0ACK\nid:1-1.3\n\n\0",
        b"STOMP\r\naccept-version:1.0\r\n\r\n\0SEND\ndestination:/a\ncontent-length:3\n\na\0b\0\n\nDISCONNECT\n\n\0",
    ],
    "sockjs": [b'["CONNECT\\naccept-version:1.2\\n\\n\\u0000"]', b'"\\n"', b'["\\ud83d\\ude00"]'],
    "cursors": [b"customer:alice=1.42,topic:menu=1.0", b"after=customer%3Aauth0%257C5=1.2&x=y"],
    "extents": [b"customer:a=1.40+42+45-47|customer:a=1.41+50", b"customer:a=1.0+5"],
    "channels": [b"customer:auth0%7C5f7c", b"topic:menu", b"customer:%D0%B0"],
    "cloud-events": [
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","channel":"customer:a","data":{"a":[1,null]}}',
        b'[{"specversion":"1.0","id":"1","source":"/s","type":"t","channel":"topic:a","data_base64":"aGk=",'
        b'"time":"2026-11-23T14:25:00Z","expirytime":"2026-11-24T00:00:00.5+02:00","replaces":true}]',
    ],
    "cloud-events-binary": [
        b'ce-specversion:1.0\nce-id:1\nce-source:/s\nce-type:t\nce-channel:customer:a\nce-subject:"a%20b"\n'
        b"content-type:application/json; charset=utf-8\n\n{}",
    ],
    "urls": [
        b"postgresql://user:p%40ss@a:5432,b/orders?sslmode=require&options=-csearch_path%3Dx&connect_timeout=3",
        b"sqlite:////var/lib/orders.db",
        b"rediss://user:pass@host:6379/1?ssl_ca_certs=/ca.pem",
        b"redis+sentinel://u:p@a:26379,b/master/0",
        b"redis+cluster://a:7000,b:7001",
        b"https://*.shop.example:444",
        "https://büro.example".encode(),
    ],
    "forwarded": [b"1.2.3.4, [::1]:80, 10.0.0.1:5", b"https"],
    "tokens": [
        b'{"sub":"alice","aud":["orderbell"],"exp":4000000000,"iat":1,"jti":"x","topics":["menu"]}',
        b"eyJhbGciOiJIUzI1NiJ9.e30.x",
    ],
    "redis-messages": [b'1 42 {"a":1}', b"seen 1.40+42", b"erased", b'{"id":"x"}'],
}
