"""Signatures on what Redis carries, so that write access to Redis does not allow forging alerts.

With `ORDERBELL_LIVE_KEYS`, senders sign what they put into Redis, gateways sign their tickets, and a gateway
accepts nothing unsigned: live messages of every kind, events in a channel's log, seen places, tickets. What a
gateway rejects it reads from the sender's history instead, so a forged or a garbled value costs a question
and shows nobody anything. Without the setting nothing is signed, and signatures are ignored.

A signature is keyed BLAKE2b of 128 bits, over the kind of value, its name in Redis (which contains channel,
prefix and database number) and its content (which contains epoch and seq): moved to another channel, place
or installation it is wrong. As text: `~<key id>~<32 hexadecimal digits>`. In front of a live message or a
ticket, behind a seen place, in a field of its own in a log.

The first key signs; all of them verify. So a key is replaced in three steps, with every process restarted in
each: add the new one behind the old one, put it in front, remove the old one. The same order turns signing on
without a rejected message: first give every gateway this version, then senders the key, then gateways.

What it does not prevent: whoever can write to Redis can delete and delay, and put an older, signed value
back. Events then come later, from the history; a place already handed over is not handed over again.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, NamedTuple

from shared.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import SecretStr

MIN_SECRET_BYTES = 32
_TAG_BYTES = 16
_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")
_BEGINNING = b"~"  # of a signed value; no unsigned one begins so
_SIGNED = re.compile(rb"~[A-Za-z0-9_-]{1,16}~[0-9a-f]{32} ")


class Kind(enum.StrEnum):  # a text, which hashes in C
    """What is signed. A signature of one kind is none of another."""

    LIVE = "live"  # also of the same event in its channel's log
    SEEN = "seen"
    TICKET = "ticket"


class InvalidLiveKey(OperatorError, ValueError):
    """Not a key; the message quotes nothing of it."""


class LiveKey(NamedTuple):
    id: str
    secret: bytes

    @classmethod
    def parse(cls, text: str) -> LiveKey:
        """Raises `InvalidLiveKey`."""
        id, colon, secret = text.partition(":")
        if not colon or not _ID.fullmatch(id):
            raise InvalidLiveKey("expected <id>:<secret>, the id of 1 to 16 letters, digits, _ or -")
        if len(secret.encode()) < MIN_SECRET_BYTES:
            raise InvalidLiveKey(
                f"a secret needs at least {MIN_SECRET_BYTES} bytes; `openssl rand -hex 32` makes one"
            )
        return cls(id, secret.encode())


class Signatures:
    """False where there are no keys."""

    def __init__(
        self, keys: Iterable[LiveKey] = (), rejected: Callable[[str], None] = lambda kind: None
    ) -> None:
        """`rejected` is called with the kind of each value whose signature is missing or wrong."""
        self._keys = [_Key(key) for key in keys]
        self._rejected = rejected

    @classmethod
    def of(cls, keys: Iterable[SecretStr], rejected: Callable[[str], None] = lambda kind: None) -> Signatures:
        return cls([LiveKey.parse(key.get_secret_value()) for key in keys], rejected)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def sign(self, kind: Kind, name: bytes, content: bytes) -> bytes:
        """The signature; empty without keys."""
        return self._keys[0].sign(kind, name, content) if self._keys else b""

    def check(self, kind: Kind, name: bytes, content: bytes, signature: bytes) -> bool:
        """Whether the content may be believed. Without keys all may."""
        for key in self._keys:
            if signature.startswith(key.beginning):
                if hmac.compare_digest(signature, key.sign(kind, name, content)):
                    return True
                break
        else:
            if not self._keys:
                return True
        self._rejected(kind.value)
        return False

    def seal(self, kind: Kind, name: bytes, content: bytes) -> bytes:
        """The content with its signature in front."""
        signature = self.sign(kind, name, content)
        return b"%b %b" % (signature, content) if signature else content

    def open(self, kind: Kind, name: bytes, sealed: bytes) -> bytes | None:
        """The content of what `seal` made; None where it may not be believed."""
        if not self._keys:
            return unsigned(sealed)
        signature, _, content = sealed.partition(b" ")
        return content if self.check(kind, name, content, signature) else None

    def opener(self, kind: Kind) -> Callable[[bytes, bytes], bytes | None]:
        """`open` for one kind, in a third less time: for what comes with each event. Needs a key."""
        first = self._keys[0]
        copy, beginning, same = first.states[kind].copy, first.beginning, hmac.compare_digest

        def open_one(name: bytes, sealed: bytes) -> bytes | None:
            signature, _, content = sealed.partition(b" ")
            state = copy()
            state.update(name + b"\0" + content)
            if same(signature, beginning + state.hexdigest().encode()):
                return content
            return self.open(kind, name, sealed)  # by another key, or not at all

        return open_one


class _Key:
    """One state a kind, which is copied for each value: keying costs as much as hashing one."""

    def __init__(self, key: LiveKey) -> None:
        self.beginning = b"~%b~" % key.id.encode()
        secret = hashlib.sha256(key.secret).digest()
        self.states = {
            kind: hashlib.blake2b(key=secret, digest_size=_TAG_BYTES, person=f"ob {kind.value}".encode())
            for kind in Kind
        }

    def sign(self, kind: Kind, name: bytes, content: bytes) -> bytes:
        state = self.states[kind].copy()
        state.update(b"%b\0%b" % (name, content))  # no name has a NUL
        return self.beginning + state.hexdigest().encode()


def unsigned(value: bytes) -> bytes:
    """The value without a signature in front, unverified: for a gateway without keys."""
    if value.startswith(_BEGINNING) and (match := _SIGNED.match(value)):
        return value[match.end() :]
    return value


NO_SIGNATURES = Signatures()
