"""A real Prometheus reads sender and gateways: every panel has data, and alerts fire because of real faults.

The rules are those of deploy/monitoring with shorter times: minutes of waiting would show nothing more. Two
alerts are not fired here: OrderbellDatabaseWentBack and OrderbellLogLinesDropped; promtool fires them in
tests/test_deploy.py.
"""

from __future__ import annotations

import contextlib
import json
import re
import runpy
import signal
import sqlite3
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx2
import pytest
import websockets.sync.client
import yaml

from shared.commands.embedded import free_port
from tests.machine import program
from tests.processes import REPOSITORY, Processes
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shared.commands.embedded import EmbeddedServer
    from tests.processes import ReceiverProcess, SenderProcess

pytestmark = pytest.mark.long

MONITORING = REPOSITORY / "deploy" / "monitoring"
PATIENCE = 60.0  # seconds, on a busy machine
# Queries that have nothing to show here: no issuer publishes keys.
EMPTY = {"time() - min by (instance) (orderbell_jwks_fetched_timestamp_seconds > 0)"}
SHORTER = (
    (r"for: \w+", "for: 1s"),
    (r"\[\d+m\]", "[20s]"),
    (r"orderbell_outbox_oldest_seconds > 60", "orderbell_outbox_oldest_seconds > 2"),
)


class Prometheus(NamedTuple):
    url: str

    def query(self, expression: str) -> list[float]:
        answer = self._get("/api/v1/query", query=expression)
        return [float(one["value"][1]) for one in answer["result"]]

    def firing(self) -> set[str]:
        alerts = self._get("/api/v1/alerts")["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def scraped(self) -> set[str]:
        """The jobs of targets that it could read."""
        targets = self._get("/api/v1/targets")["activeTargets"]
        return {one["labels"]["job"] for one in targets if one["health"] == "up"}

    def await_alerts(self, *names: str) -> None:
        """Each counts once it has fired: some end while others are waited for."""
        missing = set(names)
        deadline = time.monotonic() + PATIENCE
        while missing := missing - self.firing():
            assert time.monotonic() < deadline, f"not fired: {missing}"
            time.sleep(0.2)  # between two looks; Prometheus evaluates its rules once a second

    def _get(self, path: str, **query: str) -> Any:
        answer = httpx2.get(f"{self.url}{path}", params=query, timeout=10, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@contextlib.contextmanager
def running(directory: Path, group: int, targets: dict[str, list[int]]) -> Iterator[Prometheus]:
    binary, port = program("prometheus", "prometheus"), free_port()
    rules = (MONITORING / "rules.yaml").read_text(encoding="utf-8")
    for there, shorter in SHORTER:
        rules, count = re.subn(there, shorter, rules)
        assert count, there
    (directory / "rules.yaml").write_text(rules, encoding="utf-8")
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{one}" for one in ports]}]}
            for job, ports in targets.items()
        ],
    }
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with (directory / "prometheus.log").open("ab") as output:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={directory / 'prometheus.yaml'}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=group,
        )
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: _is_ready(prometheus.url), PATIENCE)
        yield prometheus
    finally:
        process.terminate()
        process.wait(20)


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/-/ready", timeout=2, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


class Load:
    """Completes an order a few times a second, for as long as the sender answers."""

    def __init__(self, processes: Processes, sender: SenderProcess) -> None:
        self.completed = 0
        self._client = httpx2.Client(
            base_url=sender.url, headers=processes.api_headers, timeout=10, trust_env=False
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def complete(self, order_id: str) -> bool:
        try:
            self._client.post("/orders", json={"order_id": order_id, "customer_id": "alice"})
            return self._client.post(f"/orders/{order_id}/complete").status_code == 200
        except httpx2.TransportError:
            return False

    def _run(self) -> None:
        number = 0
        while not self._over.wait(0.2):
            number += 1
            self.completed += self.complete(f"load-{number}")


def connect(processes: Processes, gateway: ReceiverProcess) -> websockets.sync.client.ClientConnection:
    return websockets.sync.client.connect(
        gateway.websocket_url,
        subprotocols=["cloudevents.json"],  # type: ignore[list-item] # a plain text will do
        additional_headers={"Authorization": f"Bearer {processes.token('alice')}"},
        proxy=None,
        ping_interval=None,
    )


def report_seen(browser: websockets.sync.client.ClientConnection) -> None:
    """The first event, as a page does."""
    while "seq" not in (message := json.loads(browser.recv(timeout=PATIENCE))):
        pass
    cursor = f"{message['channel']}={message['epoch']}.{message['seq']}"
    seen = {
        "specversion": "1.0",
        "id": "1",
        "source": "/t",
        "type": "orderbell.seen",
        "data": {"cursor": cursor},
    }
    browser.send(json.dumps(seen))


def test_each_panel_has_data_and_alerts_fire_because_of_their_causes(
    redis_server: EmbeddedServer, key_prefix: str, tmp_path: Path, process_group: int
) -> None:
    processes = Processes(redis_server.url, key_prefix, tmp_path, process_group)
    try:
        sender = processes.start_sender()
        full = processes.start_receiver(max_connections="1", canary_seconds="1")
        refused = processes.start_receiver(api_keys="another-key-than-the-senders", wait_ready=False)
        other = processes.start_receiver(allowed_origins="https://shop.example")
        gateways = [full.port, refused.port, other.port]
        ports = {"orderbell-sender": [sender.port], "orderbell-receiver": gateways}
        with (
            running(tmp_path, process_group, ports) as prometheus,
            connect(processes, full) as browser,
            Load(processes, sender) as load,
        ):
            wait_until(lambda: prometheus.scraped() == ports.keys(), PATIENCE)
            wait_until(lambda: load.completed > 3, PATIENCE)
            report_seen(browser)
            panels = runpy.run_path(str(MONITORING / "dashboard.py"))["PANELS"]
            queries = {query: title for title, *_, queries in panels for query, _ in queries}
            wait_until(lambda: not _without_data(prometheus, queries), PATIENCE)

            prometheus.await_alerts(
                "OrderbellGatewayFull", "OrderbellGatewayNotReady", "OrderbellSettingsDiffer"
            )
            # Events wait for a frozen gateway, and its loop runs late. Of what comes at once afterwards, one
            # event is sampled, or none if the canary's comes first.
            stalls = 0
            while not {"OrderbellLoopLate", "OrderbellSlow"} <= prometheus.firing():
                assert (stalls := stalls + 1) <= 5
                full.stop()
                time.sleep(2.5)  # longer than the alarms allow
                full.resume()
                time.sleep(3)  # until it was scraped and the rules were evaluated

            redis_server.kill()
            wait_until(lambda: load.complete("damaged"), PATIENCE)
            prometheus.await_alerts("OrderbellRedisDown", "OrderbellOutboxOld", "OrderbellGatewayPulls")
            _damage(tmp_path / "orderbell.db", "damaged")
            redis_server.start()
            prometheus.await_alerts("OrderbellDeadLetters")

            database = tmp_path / "orderbell.db"
            database.rename(tmp_path / "away.db")
            prometheus.await_alerts("OrderbellDatabaseDown")
            (tmp_path / "away.db").rename(database)

            sender.process.send_signal(signal.SIGKILL)
            refused.kill()
            prometheus.await_alerts("OrderbellSenderDown", "OrderbellGatewayDown", "OrderbellCanarySilent")
    finally:
        print(processes.end())


def _without_data(prometheus: Prometheus, queries: dict[str, str]) -> list[str]:
    return [
        f"{title}: {query}"
        for query, title in queries.items()
        if query not in EMPTY and not any(value == value for value in prometheus.query(query))
    ]


def _damage(database: Path, order_id: str) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        changed = connection.execute(
            "UPDATE events SET text = 'lunch' WHERE text LIKE ?", (f'%"subject":"{order_id}"%',)
        )
        assert changed.rowcount == 1
        connection.commit()
