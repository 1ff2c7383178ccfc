"""Signatures on what Redis carries, so that write access to Redis does not allow forging alerts.

With `ORDERBELL_LIVE_KEYS`, senders sign what they put into Redis, gateways sign their tickets, and a gateway
accepts nothing unsigned: live messages of every kind, events in a channel's log, seen places, tickets. In
place of a rejected value the gateway reads the sender's history, so a forged or garbled value costs one
request and is never shown. Gateways' answers to support are signed, too. Without the setting nothing is
signed, and signatures are ignored.

A signature is keyed BLAKE2b of 128 bits, over the kind of value, its name in Redis (which contains channel,
prefix and database number) and its content (which contains epoch and seq): it is wrong for any other channel,
place or installation. Its text, `~<key id>~<32 hexadecimal digits>`, stands before a live message or a
ticket, behind a seen place, and in a field of its own in a log.

The first key signs; all of them verify. So a key is replaced in three steps, restarting every process in
each: add the new key behind the old one, put it in front, remove the old one. Signing is turned on in a
similar order so that nothing is rejected: first give every gateway this version, then give senders the key,
then gateways.

Signatures do not prevent deleting, delaying, or restoring an older, signed value. Events then come later,
from the history; a place already handed over is not handed over again.
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
_BEGINNING = b"~"  # of a signed value; no unsigned value begins with it
_SIGNED = re.compile(rb"~[A-Za-z0-9_-]{1,16}~[0-9a-f]{32} ")


class Kind(enum.StrEnum):  # a text, which hashes in C
    """What is signed. A signature of one kind is not valid for another."""

    LIVE = "live"  # also of the same event in its channel's log
    SEEN = "seen"
    TICKET = "ticket"
    ANSWER = "answer"  # of a gateway, to a question of support


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
    """False if there are no keys."""

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
        """Whether the signature is valid. Without keys, anything is."""
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
        """The content of what `seal` made; None if its signature is missing or wrong."""
        if not self._keys:
            return unsigned(sealed)
        signature, _, content = sealed.partition(b" ")
        return content if self.check(kind, name, content, signature) else None

    def opener(self, kind: Kind) -> Callable[[bytes, bytes], bytes | None]:
        """`open` for one kind, in a third less time, because it runs for each event. Needs a key."""
        first = self._keys[0]
        copy, beginning, same = first.states[kind].copy, first.beginning, hmac.compare_digest

        def open_one(name: bytes, sealed: bytes) -> bytes | None:
            signature, _, content = sealed.partition(b" ")
            state = copy()
            state.update(name + b"\0" + content)
            if same(signature, beginning + state.hexdigest().encode()):
                return content
            return self.open(kind, name, sealed)  # signed by another key, or not at all

        return open_one


class _Key:
    """One keyed hash per kind, copied for each value: keying costs as much as hashing a value."""

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
