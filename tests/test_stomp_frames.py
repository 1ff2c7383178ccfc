"""receiver/transports/stomp/frames.py: clients' bytes are read however they are cut, or refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.transports.stomp.frames import (
    CLIENT_COMMANDS,
    MAX_FRAME_BYTES,
    MAX_HEADERS,
    MAX_LINE_BYTES,
    Frame,
    InvalidFrame,
    Parser,
    Version,
)
from receiver.transports.stomp.session import FrameRefused, Session

SUBSCRIBE = b"SUBSCRIBE\nid:sub-0\ndestination:/user/queue/orders\n\n\0"

TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
NAMES = st.text(TEXT, min_size=1, max_size=12).filter(lambda name: name != "content-length")
VALUES = st.text(TEXT, max_size=20)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=6)
BODIES = st.binary(max_size=60)
ESCAPED = sorted(CLIENT_COMMANDS - {"CONNECT", "STOMP"})


def parse(data: bytes, version: Version = Version.V12) -> list[Frame]:
    parser = Parser()
    parser.version = version
    return list(parser.feed(data))


@given(command=st.sampled_from(ESCAPED), headers=HEADERS, body=BODIES)
def test_any_frame_of_1_2_comes_back_as_it_was(command: str, headers: dict[str, str], body: bytes) -> None:
    frame = Frame(command, headers, body if command == "SEND" else b"")
    [found] = parse(frame.encode())
    assert (found.command, found.body) == (frame.command, frame.body)
    assert {**found.headers, "content-length": ""} == {**headers, "content-length": ""}


@given(headers=HEADERS, body=BODIES)
def test_1_1_knows_every_escape_but_carriage_return(headers: dict[str, str], body: bytes) -> None:
    plain = {name.replace("\r", ""): value.replace("\r", "") for name, value in headers.items()}
    plain.pop("", None)
    plain.pop("content-length", None)
    [found] = parse(Frame("SEND", plain, body).encode(Version.V11), Version.V11)
    assert (found.body, {**found.headers, "content-length": ""}) == (body, {**plain, "content-length": ""})


def test_frame_cut_at_every_byte_is_the_same_frame() -> None:
    data = b"\n" + SUBSCRIBE + b"\r\n\nSEND\r\ndestination:/a\r\ncontent-length:3\r\n\r\na\0b\0\n"
    whole = parse(data)
    assert [frame.body for frame in whole] == [b"", b"a\0b"]
    for at in range(len(data) + 1):
        parser = Parser()
        assert [*parser.feed(data[:at]), *parser.feed(data[at:])] == whole, at
    parser = Parser()
    assert [frame for n in range(len(data)) for frame in parser.feed(data[n : n + 1])] == whole


def test_several_frames_of_one_message_are_all_given() -> None:
    assert len(parse(SUBSCRIBE * 3)) == 3


def test_lone_line_ends_are_heartbeats_and_give_nothing() -> None:
    assert parse(b"\n\r\n\n") == []


def test_first_of_repeated_headers_counts() -> None:
    [frame] = parse(b"SEND\ndestination:/first\ndestination:/second\n\n\0")
    assert frame.headers["destination"] == "/first"


@pytest.mark.parametrize(("version", "value"), [(Version.V10, "/a b"), (Version.V11, " /a b ")])
def test_spaces_around_a_value_count_from_1_1_on(version: Version, value: str) -> None:
    [frame] = parse(b"SUBSCRIBE\ndestination: /a b \n\n\0", version)
    assert frame.headers == {"destination": value}


@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
def test_connect_is_not_escaped(command: str) -> None:
    [frame] = parse(command.encode() + b"\npasscode:a\\cb\\x\nhost:h:1\n\n\0")
    assert frame.headers == {"passcode": "a\\cb\\x", "host": "h:1"}


@pytest.mark.parametrize(
    ("version", "text", "expected"),
    [
        (Version.V12, "a\\cb\\n\\r\\\\", "a:b\n\r\\"),
        (Version.V11, "a\\cb\\n\\\\", "a:b\n\\"),
        (Version.V10, "a\\cb\\n\\x", "a\\cb\\n\\x"),
    ],
)
def test_each_version_has_its_own_escapes(version: Version, text: str, expected: str) -> None:
    [frame] = parse(b"SEND\nname:" + text.encode() + b"\n\n\0", version)
    assert frame.headers["name"] == expected


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HELLO\n\n\0", "not a command"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not a command"),
        (b"MESSAGE\n\n\0", "not a command"),  # a server's
        (b"SEND\nno colon\n\n\0", "not a header"),
        (b"SEND\n:no name\n\n\0", "not a header"),
        (b"SEND\nname:\\t\n\n\0", "undefined escape"),
        (b"SEND\nname:at the end\\\n\n\0", "undefined escape"),
        (b"SEND\nname:\xff\n\n\0", "UTF-8"),
        (b"SEND\ncontent-length:-1\n\n\0", "content-length"),
        (b"SEND\ncontent-length:1e3\n\n\0", "content-length"),
        (b"SEND\ncontent-length:\x1e3\n\nabc\0", "content-length"),  # white space to Python, once a traceback
        (b"SEND\ncontent-length:\xc2\xa03\n\nabc\0", "content-length"),
        (b"SEND\ncontent-length:1\n\nab\0", "NUL"),
        (b"SUBSCRIBE\nid:1\n\nbody\0", "no body"),
        (b"SEND\nid:1\0", "empty line"),
        (b"SEND\n" + b"a:b\n" * (MAX_HEADERS + 1) + b"\n\0", "headers"),
        (b"SEND\na:" + b"b" * MAX_LINE_BYTES + b"\n\n\0", "line"),
        (b"SEND\ncontent-length:%d\n\n" % (MAX_FRAME_BYTES + 1), "at most"),
        (b"SEND\n\n" + b"a" * (MAX_FRAME_BYTES + 1), "at most"),
        (b"SEND\na:" + b"b" * (MAX_FRAME_BYTES + 1), "at most"),
    ],
)
def test_what_is_no_frame_is_refused_with_its_reason(data: bytes, why: str) -> None:
    with pytest.raises(InvalidFrame, match=why):
        parse(data)


def test_1_1_refuses_the_escape_that_only_1_2_has() -> None:
    with pytest.raises(InvalidFrame, match="undefined escape"):
        parse(b"SEND\na:\\r\n\n\0", Version.V11)


def test_frames_before_a_bad_one_are_given() -> None:
    frames = Parser().feed(SUBSCRIBE + b"HELLO\n\n\0")
    assert next(frames).command == "SUBSCRIBE"
    with pytest.raises(InvalidFrame):
        next(frames)


@pytest.mark.parametrize("seed", range(20))
def test_mutated_frames_are_read_or_refused_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    frames = [
        SUBSCRIBE,
        b"CONNECT\naccept-version:1.2,1.1\nheart-beat:10000,10000\nlogin:a\n\n\0",
        Frame("SEND", {"destination": "/app/hello", "a:b": "c\r\n\\"}, b'{"name":"x"}').encode(),
        b"ACK\r\nid:1\r\n\r\n\0\n\n",
    ]
    for _ in range(500):
        data = bytearray(b"".join(rng.choices(frames, k=rng.randint(1, 3))))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(3):
                case 0:
                    data[at : at + 1] = bytes([rng.randrange(256)])
                case 1:
                    del data[at : at + rng.randint(1, 8)]
                case _:
                    data[at:at] = rng.choice([b"\n", b"\r", b"\0", b":", b"\\", b"\xc3"])
        version, cut = rng.choice(list(Version)), rng.randrange(len(data) + 1)
        assert outcome(bytes(data), version) == outcome(bytes(data), version, cut)


def outcome(data: bytes, version: Version, cut: int = 0) -> tuple[list[Frame], bool]:
    """The frames that were read, and whether bytes were refused."""
    parser, frames = Parser(), []
    parser.version = version
    try:
        for piece in (data[:cut], data[cut:]):
            for frame in parser.feed(piece):
                frames.append(frame)  # noqa: PERF402 - what came before a refusal counts
    except InvalidFrame:
        return frames, True
    return frames, False


# 100,000 frames, by a generator of our own, because Hypothesis needs minutes.

GENERATED = 100_000 // len(Version)  # for each version
ALPHABET = "abz09-_./ :\\\n\r\t,=%é☕\U0001f514\x01\x7f"


def generated(chance: random.Random, version: Version) -> Frame:
    """A frame that this version can carry: 1.0 has no escapes, 1.1 none for a carriage return."""
    missing = {Version.V10: "\n\r:\\ ", Version.V11: "\r", Version.V12: ""}[version]
    letters = [letter for letter in ALPHABET if letter not in missing]
    headers = {
        "".join(chance.choices(letters, k=chance.randrange(1, 9))): "".join(
            chance.choices(letters, k=chance.randrange(12))
        )
        for _ in range(chance.randrange(6))
    }
    command = chance.choice(ESCAPED)
    return Frame(command, headers, chance.randbytes(chance.randrange(40)) if command == "SEND" else b"")


def mutated(chance: random.Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(5):
            case 0:
                del found[at : at + chance.randrange(1, 9)]
            case 1:
                found[at:at] = chance.randbytes(chance.randrange(1, 5))
            case 2:
                found[at:at] = chance.choice(
                    [b"\0", b"\n", b"\r\n", b":", b"\\", b"\\t", b"content-length:9\n"]
                )
            case 3:
                found[at : at + 1] = chance.randbytes(1)
            case _:
                found[at:at] = found[: chance.randrange(len(found) + 1)]
    return bytes(found)


@pytest.mark.long
@pytest.mark.parametrize("version", Version)
def test_generated_frames_come_back_as_they_were(version: Version) -> None:
    chance = random.Random(version.value)
    parser = Parser()
    parser.version = version
    for _ in range(GENERATED):
        frame = generated(chance, version)
        [found] = parser.feed(frame.encode(version))
        length = {"content-length": str(len(frame.body))} if frame.body else {}
        assert (found.command, found.headers, found.body) == (
            frame.command,
            {**frame.headers, **length},
            frame.body,
        )


@pytest.mark.long
@pytest.mark.parametrize("version", Version)
def test_mutated_frames_end_in_frames_or_in_an_error(version: Version) -> None:
    """With the session behind them, as at a gateway. Nothing else may be raised."""
    chance = random.Random(version.value)
    counted = dict.fromkeys(("frame", "invalid", "refused"), 0)
    for _ in range(GENERATED):
        parser, session = Parser(), Session()
        session.take(Frame("CONNECT", {"accept-version": version.value}))
        parser.version = version
        data = mutated(chance, generated(chance, version).encode(version))
        cut = chance.randrange(len(data) + 1)
        try:
            for piece in (data[:cut], data[cut:]):
                for frame in parser.feed(piece):
                    session.take(frame)
                    counted["frame"] += 1
        except InvalidFrame:
            counted["invalid"] += 1
        except FrameRefused:
            counted["refused"] += 1
    assert min(counted.values()) > GENERATED / 100, counted


@pytest.mark.long
@pytest.mark.parametrize("version", Version)
def test_generated_frames_cut_at_every_byte_are_the_same(version: Version) -> None:
    chance = random.Random(version.value)
    for _ in range(300):
        frames = [generated(chance, version) for _ in range(2)]
        data = b"\r\n\n".join(frame.encode(version) for frame in frames)
        whole = parse(data, version)
        assert len(whole) == 2
        for at in range(len(data) + 1):
            parser = Parser()
            parser.version = version
            assert [*parser.feed(data[:at]), *parser.feed(data[at:])] == whole, at
