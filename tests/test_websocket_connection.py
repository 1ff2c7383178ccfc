"""`WebSocketConnection` on a real socket pair: what a browser may send, and how slow it may read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from receiver.access.identity import Identity
from receiver.connections.clock import Clock
from receiver.connections.connection import End
from receiver.connections.life import Life
from receiver.connections.notices import Bye, Hello
from receiver.feeds.burst import write_all
from receiver.feeds.feed import Feed
from receiver.transports.websocket.close_codes import Close
from receiver.transports.websocket.connection import LIMITS, WebSocketConnection
from receiver.transports.websocket.frames import close_frame, text_frame
from receiver.transports.websocket.handshake import HOLD_SECONDS, Held
from shared.channels import customer_channel
from shared.cursors import Place
from shared.events import Entry
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from receiver.connections.connection import Connection

pytestmark = pytest.mark.anyio

_FOR_EVER = 4_000_000_000.0
FIRST, LAST = Bye(1), Bye(2)  # what the gateway has to say


class Recorder(Life):
    """A life that only remembers what it is told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.messages: list[bytes] = []
        self.ends: list[tuple[int | str, str]] = []

    def receive(self, connection: Connection, text: bytes) -> None:
        self.messages.append(text)

    def leave(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None:
        self.clock.discard(connection)
        self.ends.append(connection.ending)


class Browser:
    """The other end: websockets' client side on a raw socket, so that it can also misbehave."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.protocol = ClientProtocol(parse_uri("ws://localhost/"), state=OPEN, max_size=None)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def flush(self) -> None:
        await self.send(b"".join(self.protocol.data_to_send()))

    async def receive(self) -> Frame:
        """The next frame; raises `EOFError` where there is none any more."""
        while not self.protocol.events:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 65536), 20)
            if not data:
                raise EOFError
            self.protocol.receive_data(data)
        frame = self.protocol.events.pop(0)
        assert isinstance(frame, Frame)
        return frame

    async def receive_close(self) -> CloseFrame:
        while (frame := await self.receive()).opcode is not Opcode.CLOSE:
            pass
        return CloseFrame.parse(frame.data)


class World:
    def __init__(self) -> None:
        self.clock = Clock(heartbeat_seconds=1)
        self.life = Recorder(self.clock)
        # Small and alike everywhere, so that a slow reader is soon one.
        self.connection = WebSocketConnection(self.life, replace(LIMITS, kernel_bytes=8_192))
        self.connection.identity = Identity("alice", (), expires_at=_FOR_EVER)
        self.browser: Browser

    async def connect(self) -> None:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            sock.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self.connection, sock=ours)
        self.clock.add(self.connection)
        self.browser = Browser(theirs)

    def tick(self, seconds: float = 0) -> None:
        """A second passes, or the clock is moved further."""
        self.clock.tick(asyncio.get_running_loop().time() + seconds, 0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.connect()
    yield world
    world.connection.abort("the test is over")
    world.browser.socket.close()
    await await_until(lambda: bool(world.life.ends))


def hand_over(connection: WebSocketConnection, size: int = 2) -> None:
    """An event of that size, as a hub does."""
    feed = Feed(customer_channel("alice"))
    feed.establish(Place(1, 0))
    feed.join(connection)
    feed.deliver(Entry(Place(1, 1), b"x" * size))


async def test_event_arrives_as_one_text_frame(world: World) -> None:
    hand_over(world.connection, 300)
    frame = await world.browser.receive()
    assert (frame.opcode, frame.data) == (Opcode.TEXT, b"x" * 300)


async def test_message_arrives_and_nothing_is_kept_for_it(world: World) -> None:
    world.browser.protocol.send_text(b"hello")
    await world.browser.flush()
    await await_until(lambda: world.life.messages == [b"hello"])
    assert world.connection._parser is None


async def test_message_in_single_bytes_arrives_whole(world: World) -> None:
    world.browser.protocol.send_text(b"h" * 200)
    for byte in b"".join(world.browser.protocol.data_to_send()):
        await world.browser.send(bytes([byte]))
        await asyncio.sleep(0)
    await await_until(lambda: world.life.messages == [b"h" * 200])
    assert world.connection._parser is None


async def test_message_in_fragments_arrives_whole_around_a_ping(world: World) -> None:
    protocol = world.browser.protocol
    protocol.send_text(b"he", fin=False)
    protocol.send_ping(b"are you there")
    protocol.send_continuation(b"llo", fin=True)
    await world.browser.flush()
    await await_until(lambda: world.life.messages == [b"hello"])
    pong = await world.browser.receive()
    assert (pong.opcode, pong.data) == (Opcode.PONG, b"are you there")


async def test_ping_is_answered_before_the_message_behind_it(world: World) -> None:
    """Autobahn 5.6: also where both came in one packet."""
    protocol = world.browser.protocol
    protocol.send_text(b"he", fin=False)
    protocol.send_ping(b"are you there")
    protocol.send_continuation(b"llo", fin=True)
    world.life.receive = lambda connection, text: connection.notify(FIRST)  # type: ignore[method-assign]
    await world.browser.flush()
    opcodes = [(await world.browser.receive()).opcode for _ in range(2)]
    assert opcodes == [Opcode.PONG, Opcode.TEXT]


@pytest.mark.parametrize("at_once", [True, False])
async def test_close_between_two_fragments_is_answered_as_any_other(world: World, *, at_once: bool) -> None:
    """RFC 6455 5.4, Autobahn 7.1.5."""
    sent = b"\x01\x82\0\0\0\0he" + b"\x88\x82\0\0\0\0\x03\xe8" + b"\x80\x83\0\0\0\0llo"
    for piece in [sent] if at_once else [sent[n : n + 1] for n in range(len(sent))]:
        with contextlib.suppress(ConnectionError):  # what follows the close may not be taken any more
            await world.browser.send(piece)
        await asyncio.sleep(0)
    assert (await world.browser.receive_close()).code == 1000
    assert not world.life.messages


async def test_text_that_cannot_become_utf8_any_more_is_refused_before_its_last_fragment(
    world: World,
) -> None:
    """RFC 6455 8.1, Autobahn 6.4.1: and what is only cut within a character is not."""
    await world.browser.send(b"\x01\x83\0\0\0\0a\xf0\x9f" + b"\x00\x82\0\0\0\0\x94\x94")
    await world.browser.send(b"\x00\x84\0\0\0\0\xf4\x90\x80\x80")
    assert (await world.browser.receive_close()).code == 1007


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (b"\xf1\x80\0\0\0\0", 1002),  # reserved bits
        (b"\x83\x80\0\0\0\0", 1002),  # no such opcode
        (b"\x80\x80\0\0\0\0", 1002),  # continues nothing
        (b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126, 1002),  # a ping of 126 bytes
        (b"\x81\xfe\x40\x01\0\0\0\0", 1009),  # 16,385 bytes
        (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),  # 2^63 - 1 bytes
        (b"\x82\x81\0\0\0\0x", 1003),  # binary
        (b"\x88\x81\0\0\0\0x", 1002),  # half a close code
    ],
)
async def test_broken_frame_ends_the_connection(world: World, data: bytes, code: int) -> None:
    await world.browser.send(data)
    assert (await world.browser.receive_close()).code == code
    world.tick(3)
    await await_until(lambda: [end[0] for end in world.life.ends] == [code])


async def test_close_of_the_browser_is_answered_and_ends_it(world: World) -> None:
    world.browser.protocol.send_close(1001, "leaving")
    await world.browser.flush()
    assert (await world.browser.receive_close()).code == 1001
    await await_until(lambda: world.life.ends == [(1001, "closed by the client")])


async def test_first_reason_to_close_wins_and_nothing_follows_it(world: World) -> None:
    world.connection.end(End.UNAUTHENTICATED, "expired")
    world.connection.end(End.SLOW, "too slow")
    hand_over(world.connection)
    assert await world.browser.receive_close() == CloseFrame(4401, "expired")
    await world.browser.flush()
    with contextlib.suppress(EOFError):
        pytest.fail(f"{await world.browser.receive()} after the close frame")
    await await_until(lambda: world.life.ends == [(4401, "expired")])


async def test_browser_that_does_not_answer_a_close_is_ended(world: World) -> None:
    world.connection.end(End.FORBIDDEN, "no")
    world.tick()
    assert world.life.ends == []
    world.tick(3)
    await await_until(lambda: world.life.ends == [(4403, "no")])


async def test_42_browser_that_reads_nothing_is_closed_with_bounded_memory(world: World) -> None:
    handed_over = 0
    while not world.connection.closed:
        hand_over(world.connection, 1_000)
        handed_over += 1
    assert world.connection.ending == (4408, "too slow")
    assert handed_over * 1_000 < 2 * LIMITS.buffer_bytes
    world.tick(3)
    await await_until(lambda: world.life.ends == [(4408, "too slow")])


async def test_browser_that_is_found_slow_gets_nothing_of_the_burst_after_its_close(world: World) -> None:
    frame = text_frame(b"x" * 1_000)
    write_all([((world.connection,), frame)] * (2 * LIMITS.buffer_bytes // 1_000))
    assert world.connection.ending == (4408, "too slow")
    received = b""
    while not received.endswith(b"too slow"):
        received += await asyncio.wait_for(
            asyncio.get_running_loop().sock_recv(world.browser.socket, 65536), 5
        )
    assert received.endswith(close_frame(Close.SLOW, "too slow"))
    assert len(received) < 2 * LIMITS.buffer_bytes
    world.tick(3)
    await await_until(lambda: bool(world.life.ends))
    assert await asyncio.get_running_loop().sock_recv(world.browser.socket, 65536) == b""


async def test_browser_that_stalls_with_little_to_read_is_closed_in_time(world: World) -> None:
    while not world.connection.behind:
        hand_over(world.connection, 1_000)
    world.tick(4)
    assert not world.connection.closed
    world.connection.heard = True  # it sends, but does not read
    world.tick(6)
    assert world.connection.ending == (4408, "too slow")


async def test_browser_that_reads_again_stays(world: World) -> None:
    sent = 0
    while not world.connection.paused:
        hand_over(world.connection, 1_000)
        sent += 1
    waiting = asyncio.create_task(world.connection.wait_writable())
    for _ in range(sent):
        await world.browser.receive()
    await asyncio.wait_for(waiting, 20)
    world.tick(60)
    assert not world.connection.closed


async def test_what_the_kernel_takes_in_part_arrives_whole_and_in_order(world: World) -> None:
    frames = [text_frame(letter * 100_000) for letter in (b"a", b"b")]
    write_all([((world.connection,), frame) for frame in frames])
    assert world.connection.paused
    world.connection.notify(LAST)
    for text in (b"a" * 100_000, b"b" * 100_000, LAST.cloud_event):
        assert (await world.browser.receive()).data == text


async def test_nothing_overtakes_what_waits_though_the_kernel_has_room_again(world: World) -> None:
    sent = 0
    while world.connection.writer.get_write_buffer_size() == 0:
        write_all([((world.connection,), text_frame(b"%06d" % sent * 100))])
        sent += 1
    world.browser.protocol.receive_data(world.browser.socket.recv(8_000))  # the loop has not run since
    for number in range(sent, sent + 10):
        write_all([((world.connection,), text_frame(b"%06d" % number * 100))])
    for number in range(sent + 10):
        assert (await world.browser.receive()).data == b"%06d" % number * 100


async def test_browser_for_which_little_waits_is_not_called_slow(world: World) -> None:
    """Its line may be busy; what it sends meanwhile is answered as ever."""
    while not world.connection.paused:
        hand_over(world.connection, 1_000)
    for _ in range(10):
        world.connection.heard = True
        world.tick(60)
    world.browser.protocol.send_ping(b"still here")
    await world.browser.flush()
    while (frame := await world.browser.receive()).opcode is not Opcode.PONG:
        pass
    assert frame.data == b"still here"
    await await_until(lambda: not world.connection.paused)
    assert not world.connection.closed


async def test_time_in_which_little_waited_does_not_count_as_stalled(world: World) -> None:
    while not world.connection.paused:
        hand_over(world.connection, 1_000)
    world.tick(60)
    while not world.connection.behind:
        hand_over(world.connection, 1_000)
    world.connection.heard = True
    world.tick(64)
    assert not world.connection.closed
    world.connection.heard = True
    world.tick(66)
    assert world.connection.ending == (4408, "too slow")


async def test_browser_that_is_gone_without_a_word_ends_by_what_is_sent_to_it(world: World) -> None:
    file = world.connection.socket.fileno()
    assert file == world.connection.writer.get_extra_info("socket").fileno()
    world.browser.socket.close()
    hand_over(world.connection)
    hand_over(world.connection)
    await await_until(lambda: bool(world.life.ends))
    assert world.connection.socket.fileno() == -1  # or it would close another connection's file one day
    assert world.life.ends == [(1006, "")]


async def test_too_many_frames_are_refused(world: World) -> None:
    for _ in range(LIMITS.customers.frames_a_second + 1):
        world.browser.protocol.send_pong(b"")
    await world.browser.flush()
    assert (await world.browser.receive_close()).code == 4429


@pytest.mark.parametrize(
    "behind", [b"", b"\x81", b"\x81\x82\0\0\0\0a"], ids=["", "half a head", "half a frame"]
)
async def test_of_too_many_frames_in_one_read_none_is_parsed(world: World, behind: bytes) -> None:
    one, most = b"\x81\x82\0\0\0\0ab", LIMITS.customers.frames_a_second
    whole = one * most
    world.connection.data_received(whole[: len(behind)])
    world.connection.data_received(whole[len(behind) :])
    assert world.life.messages == [b"ab"] * most  # as many as it may
    world.life.clock.ticks += 1
    world.connection.data_received(whole[: len(behind)])
    world.connection.data_received(whole[len(behind) :] + one)
    assert world.connection.ending.code == 4429
    assert world.life.messages == [b"ab"] * most


PONG = b"\x8a\x80mask"  # as a browser answers our ping


async def test_too_many_pongs_that_come_alone_are_refused(world: World) -> None:
    for _ in range(LIMITS.customers.frames_a_second):
        world.connection.data_received(PONG)
    assert not world.connection.closed
    world.connection.data_received(PONG)
    assert (await world.browser.receive_close()).code == 4429
    world.connection.data_received(PONG)
    assert world.connection.ending.code == 4429


async def test_pong_that_comes_alone_is_heard_without_a_parser(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("receiver.transports.websocket.connection.Parser")
    world.connection.heard = False
    world.connection.data_received(PONG)
    assert world.connection.heard


async def test_pong_between_two_parts_of_a_message_disturbs_it_not(world: World) -> None:
    world.browser.protocol.send_text(b"half ", fin=False)
    await world.browser.flush()
    await await_until(lambda: world.connection._fragments is not None)
    world.connection.data_received(PONG)
    world.browser.protocol.send_continuation(b"a message", fin=True)
    await world.browser.flush()
    await await_until(lambda: world.life.messages == [b"half a message"])


async def test_bytes_of_a_message_that_look_like_a_pong_are_the_messages(world: World) -> None:
    world.connection.data_received(b"\x81\x86\0\0\0\0")  # a text of six bytes, masked with nothing
    world.connection.data_received(b"a" * 3)
    world.connection.data_received(b"b" * 3)
    world.connection.data_received(b"\x81\x8c\0\0\0\0abcdef")
    world.connection.data_received(b"ghijkl")
    assert world.life.messages == [b"aaabbb", b"abcdefghijkl"]
    # Binary, so refused whatever it says: but as the twelve bytes that it is, and not before its end.
    world.connection.data_received(b"\x82\x8c\0\0\0\0abcdef")
    world.connection.data_received(PONG)
    assert world.connection.ending.code == 1003


async def test_pings_of_one_that_does_not_read_pile_up_nowhere(world: World) -> None:
    while not world.connection.behind:
        hand_over(world.connection, 1_000)
    world.browser.protocol.send_ping(b"x" * 125)
    await world.browser.flush()
    await await_until(lambda: world.life.ends == [(4408, "does not read the answers to its pings")])


async def test_silent_browser_is_dropped_within_two_heartbeats(world: World) -> None:
    world.tick()
    assert (await world.browser.receive()).opcode is Opcode.PING
    world.tick()
    await await_until(lambda: world.life.ends == [(1006, "no heartbeat")])


async def test_browser_that_answers_pings_stays(world: World) -> None:
    for _ in range(5):
        world.tick()
        assert (await world.browser.receive()).opcode is Opcode.PING
        await world.browser.flush()  # the pong
        await await_until(lambda: world.connection.heard)
    assert not world.connection.closed


async def test_after_hello_a_heartbeat_is_also_a_message_that_a_page_can_see(world: World) -> None:
    world.tick()
    assert (await world.browser.receive()).opcode is Opcode.PING
    await world.browser.flush()
    await await_until(lambda: world.connection.heard)
    world.connection.notify(Hello("customer:alice=1.0", (), 1, "g", ()))
    assert b"orderbell.hello" in (await world.browser.receive()).data  # and nothing was before it
    world.tick()
    assert (await world.browser.receive()).opcode is Opcode.PING
    assert b'"orderbell.heartbeat"' in (await world.browser.receive()).data


async def test_48_connection_ends_with_its_token(world: World) -> None:
    world.connection.identity = Identity("alice", (), expires_at=100)
    world.clock.tick(asyncio.get_running_loop().time(), wall_clock=99)
    assert not world.connection.closed
    world.connection.heard = True
    world.clock.tick(asyncio.get_running_loop().time(), wall_clock=101)
    assert world.connection.ending == (4401, "the token has expired")


def hold(connection: WebSocketConnection, first: bytes) -> None:
    connection.writer = Held(connection, connection.writer, first)  # type: ignore[assignment]


async def receive_some(world: World) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(world.browser.socket, 65536), 20)


async def test_answer_to_the_handshake_leaves_with_what_is_said_first(world: World) -> None:
    hold(world.connection, b"HTTP/1.1 101 \r\n\r\n")
    await asyncio.sleep(HOLD_SECONDS / 4)  # nothing may come meanwhile
    with pytest.raises(BlockingIOError):
        world.browser.socket.recv(1)
    world.connection.notify(FIRST)
    world.connection.notify(LAST)
    expected = b"HTTP/1.1 101 \r\n\r\n" + text_frame(FIRST.cloud_event) + text_frame(LAST.cloud_event)
    received = b""
    while len(received) < len(expected):
        received += await receive_some(world)
    assert received == expected
    await asyncio.sleep(2 * HOLD_SECONDS)  # not once more
    with pytest.raises(BlockingIOError):
        world.browser.socket.recv(1)


async def test_answer_to_the_handshake_does_not_wait_long(world: World) -> None:
    """What it waits for may need a server that is away."""
    hold(world.connection, b"HTTP/1.1 101 \r\n\r\n")
    assert await receive_some(world) == b"HTTP/1.1 101 \r\n\r\n"
    world.connection.notify(FIRST)
    assert await receive_some(world) == text_frame(FIRST.cloud_event)


async def test_connection_that_is_refused_after_its_handshake_gets_the_answer_first(world: World) -> None:
    hold(world.connection, b"HTTP/1.1 101 \r\n\r\n")
    world.connection.end(End.UNAUTHENTICATED, "no token")
    received = b""
    expected = b"HTTP/1.1 101 \r\n\r\n" + close_frame(Close.UNAUTHENTICATED, "no token")
    while len(received) < len(expected):
        received += await receive_some(world)
    assert received == expected


async def test_connection_that_is_lost_before_anything_was_said_gets_nothing_written(world: World) -> None:
    hold(world.connection, b"HTTP/1.1 101 \r\n\r\n")
    world.connection.abort("gone")
    await await_until(lambda: bool(world.life.ends))
    await asyncio.sleep(2 * HOLD_SECONDS)  # when it would be written
    assert await receive_some(world) == b""


_PINGS = b"\x89\x80\0\0\0\0" * 2_000  # more than anybody may send, in one read


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (b"\x88\x80\0\0\0\0", 1005),  # a close
        (b"\xc1\x80\0\0\0\0", 1002),  # RSV1
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that nobody has defined
        (b"\x8b\x80\0\0\0\0", 1002),
        (b"\x81\x00", 1002),  # not masked
        (b"\x09\x80\0\0\0\0", 1002),  # a ping in fragments
        (b"\x8a\xfe\0\x7e\0\0\0\0" + b"a" * 126, 1002),  # a pong longer than 125 bytes
    ],
)
async def test_what_stands_behind_the_last_frame_that_is_read_does_not_count(
    world: World, first: bytes, code: int
) -> None:
    world.connection.data_received(first + _PINGS)
    assert (await world.browser.receive_close()).code == code


async def test_frames_before_an_invalid_one_count(world: World) -> None:
    world.connection.data_received(_PINGS + b"\xc1\x80\0\0\0\0")
    assert (await world.browser.receive_close()).code == Close.TOO_FAST
