"""URL TOKEN DESTINATION...: stomp.py over WebSocket, as `listen.cjs` does it for others."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import stomp

URL, TOKEN, *DESTINATIONS = sys.argv[1:]


def say(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


class Listener(stomp.ConnectionListener):  # type: ignore[misc] # it has no types
    def __init__(self, connection: stomp.WSStompConnection) -> None:
        self.connection = connection

    def on_connected(self, frame: Any) -> None:
        say("connected", headers=frame.headers)
        for number, destination in enumerate(DESTINATIONS):
            self.connection.subscribe(destination, id=str(number))

    def on_message(self, frame: Any) -> None:
        say("message", body=frame.body, destination=frame.headers["destination"], headers=frame.headers)

    def on_error(self, frame: Any) -> None:
        say("error", body=frame.body, headers=frame.headers)

    def on_disconnected(self) -> None:
        say("closed")
        threading.Thread(target=connect, daemon=True).start()


def connect() -> None:
    parts = urlsplit(URL)
    while True:
        connection = stomp.WSStompConnection([(parts.hostname, parts.port)], ws_path=parts.path)
        connection.set_listener("", Listener(connection))
        try:
            connection.connect(passcode=TOKEN, wait=True)
        except stomp.exception.ConnectFailedException:
            time.sleep(0.2)
        else:
            return


connect()
sys.stdin.read()
