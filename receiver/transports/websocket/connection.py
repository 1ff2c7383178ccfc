"""One WebSocket after its handshake: a socket and a few flags.

An idle connection has no task and no memory but this object. Frames from the client are rare (seen, pong,
close); the websockets library parses and checks them, with a parser that is made when bytes come and dropped
when they end between two messages. It gets one frame at a time, and none beyond what the client may send
(receiver/transports/websocket/traffic.py); after that, the connection is not read any more.

Sending is in receiver/transports/stream.py.
"""

from __future__ import annotations

import codecs
from functools import lru_cache
from typing import TYPE_CHECKING

from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER
from websockets.protocol import Protocol as Parser

from receiver.connections.connection import End, Ending, SharingConnection
from receiver.connections.notices import Heartbeat
from receiver.transports.limits import WebSocketLimits
from receiver.transports.stream import StreamConnection
from receiver.transports.websocket.close_codes import CODES, Close
from receiver.transports.websocket.frames import (
    PING,
    close_frame,
    frame_size,
    more_frames,
    text_frame,
    text_header,
)
from receiver.transports.websocket.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from receiver.connections.life import Life
    from receiver.connections.notices import Notice
    from shared.channels import Channel
    from shared.cursors import Place
    from shared.events import Entry

_EMPTY_PONG = b"\x8a\x80"  # without its mask of four bytes, which follows
_EMPTY_PONG_BYTES = 6
_LARGE_READ = 1024  # bytes, more than a browser's messages have: its frames are counted before any is parsed
_OPCODE = 0x0F  # in a frame's first byte
_new_decoder = codecs.getincrementaldecoder("utf-8")
_USUAL = frozenset({Close.NORMAL, Close.GOING_AWAY, Close.NO_CODE})  # of a client's close frame

LIMITS = WebSocketLimits()


class Fragments:
    """A message that is not whole yet. A text that can't become UTF-8 any more is refused at once, RFC 6455
    8.1.
    """

    __slots__ = ("_decoder", "texts")

    def __init__(self, *, is_text: bool) -> None:
        self._decoder = _new_decoder() if is_text else None
        self.texts: list[bytes] = []

    def add(self, text: bytes, *, final: bool) -> None:
        """Raises `UnicodeDecodeError`."""
        if self._decoder is not None:
            self._decoder.decode(text, final)
        self.texts.append(text)


class WebSocketConnection(StreamConnection, SharingConnection):
    __slots__ = (
        "_close_sent",
        "_fragments",
        "_greeted",
        "_head",
        "_missing",
        "_parser",
        "_traffic",
        "heard",
    )

    transport = "websocket"
    takes_binary = False  # whether a binary message counts as a text does

    def __init__(self, life: Life, limits: WebSocketLimits = LIMITS) -> None:
        super().__init__(life, limits)
        self._limits: WebSocketLimits = limits
        self.ending = Ending(Close.VANISHED, "")
        self._close_sent = False
        self._head = b""  # of a frame whose header is not whole yet
        self._missing = 0  # bytes, of a frame that is not whole yet
        self._parser: Parser | None = None
        self._fragments: Fragments | None = None  # of a message that is not whole yet
        self._traffic: Traffic | None = None
        self.heard = True  # any bytes since the last heartbeat
        self._greeted = False  # its first notice, hello, was sent

    @staticmethod
    def frame(channel: Channel, epoch: int, seq: int, text: bytes) -> bytes:
        return text_header(len(text)) + text

    # The gateway's side.

    def deliver(self, channel: Channel, place: Place, text: bytes) -> None:
        self.write(text_frame(text))

    def deliver_all(self, channel: Channel, entries: Sequence[Entry]) -> None:
        self.write(b"".join([text_frame(entry.text) for entry in entries]))

    def notify(self, notice: Notice) -> None:
        if self._greeted:
            self.write_straight(text_frame(notice.cloud_event))
        else:  # the answer to the handshake may still be in the transport
            self._greeted = True
            self.write(text_frame(notice.cloud_event))

    def beat(self, now: float) -> None:
        """A client that was silent since the last ping is dead: it is dropped within two heartbeats."""
        if not self.heard:
            self.abort("no heartbeat")
            return
        self.heard = False
        self._traffic = None
        if not self.closed:
            # The ping proves that the client is alive, the message that we are: a page can't see pings. Hello
            # comes first.
            if self._greeted:
                self.write_straight(_beat(int(now)))
            else:
                self.writer.write(PING)

    def end(self, end: End, reason: str) -> None:
        self.close(CODES[end], reason)

    def close(self, code: Close, reason: str) -> None:
        """Send a close frame and nothing more. The first reason wins."""
        if not self.closed:
            self.writer.write(close_frame(code, reason))
            self._close_sent = True
            self._end(code, reason)

    def drop(self) -> None:
        self.writer.abort()

    def abort(self, reason: str, code: Close = Close.VANISHED) -> None:
        """End at once, without a close frame, because the client does not read."""
        self._end(code, reason)
        self.writer.abort()

    # The transport's side.

    def connection_lost(self, exc: Exception | None) -> None:
        self._parser = self._fragments = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.heard:
            self.heard = True
            if self._is_between_frames and len(data) == _EMPTY_PONG_BYTES and data.startswith(_EMPTY_PONG):
                return  # our ping's answer; parsers for these took a fifth of an idle gateway's time
        if self._parser is None:
            self._parser = Parser(SERVER, max_size=self._limits.message_bytes)
        parser = self._parser
        if self._parse_frames(parser, data) and self._flush(parser):
            if self._is_between_frames and self._fragments is None and not self.closed:
                self._parser = None
        else:
            self._parser = self._fragments = None

    @property
    def _is_between_frames(self) -> bool:
        return not self._missing and not self._head

    def _parse_frames(self, parser: Parser, data: bytes) -> bool:
        """Parse frame by frame; False if the client has sent too much and must not be read any more."""
        if self._traffic is None:
            self._traffic = Traffic()
        if not self._is_between_frames:
            self._traffic.count_read()
            data, self._head = self._head + data, b""
        allowance = self._limits.customers if self.identity else self._limits.strangers
        if len(data) > _LARGE_READ:
            left = self._traffic.frames_left(allowance, self.life.clock.ticks)
            if more_frames(data, self._missing, left):
                self._refuse_to_read()
                return False
        start = 0
        while start < len(data) and parser.parser_exc is None and parser.close_rcvd is None:
            if not self._missing:
                size = frame_size(data, start)
                if size is None:
                    self._head = data[start:]
                    break
                self._missing = size
                self._traffic.count_frame(min(size, self._limits.message_bytes), self.life.clock.ticks)
                if data[start] & _OPCODE == Opcode.CLOSE:
                    parser.current_size = None  # RFC 6455 5.4: it may come between two fragments
            if self._traffic.exceeds(allowance):
                self._refuse_to_read()
                return False
            piece = data[start : start + self._missing]
            start += len(piece)
            self._missing -= len(piece)
            parser.receive_data(piece)
            for frame in parser.events_received():
                assert isinstance(frame, Frame)
                self._take(frame)
                # Before what is answered to a message behind it.
                if frame.opcode is Opcode.PING and not self._flush(parser):
                    return False
        return True

    def _refuse_to_read(self) -> None:
        self.end(End.TOO_FAST, "too many frames")
        self._head, self._missing = b"", 0
        self.writer.pause_reading()

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            code = int.from_bytes(frame.data[:2], "big") if frame.data else Close.NO_CODE
            reason = "closed by the client" if code in _USUAL else f"closed by the client with {code}"
            self._end(code if code in _USUAL else "other", reason)
        elif self.closed:
            pass  # now only the client's answer to our close frame counts
        elif frame.opcode is Opcode.BINARY and not self.takes_binary:
            self.close(Close.UNSUPPORTED_DATA, "text only")
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._take_piece(bytes(frame.data), final=frame.fin, is_text=frame.opcode is Opcode.TEXT)

    def _take_piece(self, text: bytes, *, final: bool, is_text: bool) -> None:
        """A message, or one of its fragments; `is_text` counts for the first of them."""
        try:
            if self._fragments is None and final:
                if is_text:
                    text.decode()
            else:
                self._fragments = self._fragments or Fragments(is_text=is_text)
                self._fragments.add(text, final=final)
        except UnicodeDecodeError:
            self.close(Close.INVALID_DATA, "not UTF-8")
            return
        if self._fragments is not None:
            if len(self._fragments.texts) > self._limits.message_fragments:
                self.end(End.TOO_FAST, "too many fragments")
            if not final:
                return
            text, self._fragments = b"".join(self._fragments.texts), None
        if not self.closed:
            self.received(text)

    def received(self, text: bytes) -> None:
        """Handle a message of the client. A text is in UTF-8; a binary message may not be."""
        self.life.receive(self, text)

    def _flush(self, parser: Parser) -> bool:
        """Send the parser's answers: pongs, a close. False once the connection ends."""
        answer = b"".join(parser.data_to_send())
        if self._close_sent:  # now only the client's answer to it counts
            answer = b""
        if parser.parser_exc is not None:
            code = parser.close_sent.code if parser.close_sent else Close.VANISHED
            self._end(code, str(parser.parser_exc))
        if answer and self.behind:  # pings of a client that does not read
            self.abort("does not read the answers to its pings", Close.SLOW)
            return False
        if answer:
            self.writer.write(answer)
        if parser.close_expected():
            self.writer.close()
            return False
        return True


@lru_cache(maxsize=1)
def _beat(second: int) -> bytes:
    """A ping and the heartbeat of one second, for all connections due in it."""
    return PING + text_frame(Heartbeat().cloud_event)
