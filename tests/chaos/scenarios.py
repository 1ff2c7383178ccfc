"""One fault at a time, under load, and its figures: what issue and README promise, a function each."""

from __future__ import annotations

import re
import signal
import sqlite3
import statistics
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from tests.chaos import nemesis, report
from tests.chaos.figures import Figures
from tests.chaos.ledger import End, Fault, Reset, now, read
from tests.chaos.run import running
from tests.chaos.slow_reader import SlowReader
from tests.chaos.system import BLACK_HOLE, serves_live, wait_live
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.chaos.checker import Verdict
    from tests.chaos.run import Load, Run
    from tests.processes import ReceiverProcess, SenderProcess

CALM = 3.0  # seconds of load before anything happens


@dataclass(frozen=True)
class Stage:
    """Where a scenario plays."""

    directory: Path
    process_group: int
    load: Load
    say: Callable[[str], None]
    times: int | None = None

    def running(self, **options: Any) -> AbstractContextManager[Run]:
        return running(self.directory, self.process_group, load=self.load, say=self.say, **options)


@dataclass(frozen=True)
class Outcome:
    good: bool
    figures: str

    def __str__(self) -> str:
        return f"{'kept' if self.good else 'NOT KEPT'}: {self.figures}"


def _outcome(verdict: Verdict, figures: str, *conditions: bool) -> Outcome:
    examples = "".join(f"\n   {example}" for example in verdict.examples)
    return Outcome(verdict.kept and all(conditions), f"{figures}\n   {report.line(verdict)}{examples}")


def _recovered(verdict: Verdict) -> tuple[float, str]:
    """The median over the faults of the time until the last device had recovered; and all of it in words."""
    last = [recovery.worst for recovery in verdict.recoveries]
    middle = [recovery.median for recovery in verdict.recoveries]
    median = statistics.median(last)
    return median, (
        f"recovered: median {median:.1f} s, worst {max(last):.1f} s (last device of {len(last)} faults); "
        f"median device {statistics.median(middle):.1f} s"
    )


def gateway_killed(stage: Stage) -> Outcome:
    """kill -9 of a gateway; its clients go to the other."""
    with stage.running() as run:
        for number in range(stage.times or 5):
            run.spread()
            run.sleep(CALM)
            with run.fault("gateway killed", gateway=run.system.gateways[number % 2]):
                run.sleep(5)
        verdict = run.finish()
    median, words = _recovered(verdict)
    return _outcome(verdict, words, median <= 3)


def gateway_drained(stage: Stage) -> Outcome:
    """SIGTERM to a gateway; its clients are sent away, spread over the drain."""
    seconds = 5.0
    with stage.running(drain_seconds=seconds) as run:
        for number in range(stage.times or 3):
            run.spread()
            run.sleep(CALM)
            with run.fault("gateway drained", gateway=run.system.gateways[number % 2]):
                run.sleep(seconds + 3)
        verdict = run.finish()
    ends = [e for e in read([stage.directory / "clients.jsonl"]) if isinstance(e, End)]
    ended = [[e.at for e in ends if f.began <= e.at < f.began + seconds + 3] for f in run.faults]
    spread = [max(at) - min(at) for at in ended]
    clean = all(e.code == 1012 and e.bye for e in ends)
    words = f"clients left within {', '.join(f'{s:.1f} s' for s in spread)} of a drain of {seconds:g} s; "
    words += "each got bye and was closed with 1012" if clean else "NOT all got bye and 1012"
    return _outcome(verdict, f"{words}; {_recovered(verdict)[1]}", clean, min(spread) > 0.7 * seconds)


def redis_killed(stage: Stage) -> Outcome:
    """Redis killed, back after 10 s, empty."""
    with stage.running() as run:
        for number in range(stage.times or 3):
            run.sleep(CALM)
            with run.fault("redis killed", number):
                run.sleep(10)
            run.sleep(8)
        verdict = run.finish()
    median, words = _recovered(verdict)
    return _outcome(verdict, words, median <= 5)


def redis_away(stage: Stage) -> Outcome:
    """Redis away for two minutes: events are pulled from the sender."""
    seconds = 120.0
    with stage.running() as run:
        run.sleep(CALM)
        began = now()
        with run.fault("redis killed"):
            run.sleep(seconds)
        run.sleep(5)
        verdict = run.finish()
    p50 = verdict.quantile(0.5, since=began, until=began + seconds)
    p99 = verdict.quantile(0.99, since=began, until=began + seconds)
    worst = verdict.quantile(1, since=began, until=began + seconds)
    words = f"meanwhile from order to frame p50 {p50:.2f} s, p99 {p99:.2f} s, worst {worst:.2f} s"
    return _outcome(verdict, words, p99 <= 3)


def redis_frozen(stage: Stage) -> Outcome:
    """Redis frozen (SIGSTOP) for 20 s."""
    with stage.running() as run:
        run.sleep(CALM)
        with run.fault("redis frozen"):
            noticed = [wait_live(gateway, live=False, timeout=15) for gateway in run.system.gateways]
            run.sleep(20 - max(noticed))
            meanwhile = any(serves_live(gateway) for gateway in run.system.gateways)
        run.sleep(8)
        verdict = run.finish()
    words = (
        f"noticed after {max(noticed):.1f} s, {'HEARD' if meanwhile else 'pulled around'} until it was back"
    )
    return _outcome(verdict, f"{words}; {_recovered(verdict)[1]}", max(noticed) <= 6, not meanwhile)


def redis_black_hole(stage: Stage) -> Outcome:
    """A black hole between one gateway and Redis for 20 s."""
    with stage.running() as run:
        run.sleep(CALM)
        gateway, other = run.system.gateways[:2]
        edge = run.system.redis_edge(gateway)
        began = now()
        run.system.proxy.change(edge, up=BLACK_HOLE, down=BLACK_HOLE)
        noticed = wait_live(gateway, live=False, timeout=15)
        run.sleep(20 - (now() - began))
        meanwhile = serves_live(gateway), serves_live(other)
        run.system.proxy.heal(edge)
        run.faults.append(Fault("redis black hole", began, now(), edge))
        ready = wait_live(gateway, live=True, timeout=15)
        run.sleep(6)
        verdict = run.finish()
    words = f"noticed after {noticed:.1f} s, {'HEARD' if meanwhile[0] else 'pulled around'} meanwhile, "
    words += f"live again after {ready:.1f} s"
    good = noticed <= 6 and meanwhile == (False, True)
    return _outcome(verdict, f"{words}; {_recovered(verdict)[1]}", good)


def redis_failed_over(stage: Stage) -> Outcome:
    """Fail-over to a replica that lacks the last 50 writes and more."""
    with stage.running() as run:
        for number in range(stage.times or 3):
            run.sleep(CALM)
            with run.fault("redis failed over", number):
                run.sleep(8)
        verdict = run.finish()
    median, words = _recovered(verdict)
    lost = "; ".join(fault.what for fault in run.faults)
    return _outcome(verdict, f"{lost}; {words}", median <= 5)


def redis_failed_over_idle(stage: Stage) -> Outcome:
    """The same, without further orders: devices that were away come back to a Redis that forgot."""
    with stage.running() as run:
        seconds = []
        for number in range(stage.times or 3):
            run.callers.set_rate(stage.load.rate)
            run.sleep(CALM)
            away = list(run.devices)[number::5]
            run.swarm.leave(away)
            with run.fault("redis failed over", number):
                run.callers.set_rate(0)
                wait_until(lambda: run.callers.status().under_way == 0, 20)
            run.swarm.come(away)
            seconds.append(run.settle())
            run.progress(f"all had everything after {seconds[-1]:.1f} s")
        verdict = run.finish()
    words = f"devices that were away had everything after {', '.join(f'{s:.1f} s' for s in seconds)}"
    return _outcome(verdict, words, statistics.median(seconds) <= 5)


def sender_killed(stage: Stage) -> Outcome:
    """A sender killed between commit and publish, 100 times."""
    with stage.running(without={"sender": "crash-on-signal"}) as run:
        sender = run.system.senders[0]
        for _ in range(stage.times or 100):
            run.sleep(0.7)
            began = now()
            sender.process.send_signal(signal.SIGUSR1)  # dies before its next publish
            sender.process.wait(20)
            nemesis.start(sender)
            run.faults.append(Fault("sender killed", began, now()))
        run.sleep(3)
        verdict = run.finish()
    median, words = _recovered(verdict)
    return _outcome(verdict, words, median <= 2)


def relays_racing(stage: Stage) -> Outcome:
    """Two relays race, and replies are cut off after their scripts ran."""
    with stage.running(database="postgres", senders=2) as run:
        for number in range(stage.times or 5):
            run.sleep(CALM)
            with run.fault("redis replies lost", number):
                run.sleep(4)
        verdict = run.finish()
    return _outcome(verdict, _recovered(verdict)[1])


def postgres_restarted(stage: Stage) -> Outcome:
    """PostgreSQL restarted, in peace and by a crash, under two senders."""
    with stage.running(database="postgres", senders=2) as run:
        for number in range(stage.times or 4):
            run.sleep(CALM)
            with run.fault("postgres restarted", number):
                run.sleep(1)
            run.sleep(5)
        verdict = run.finish()
    median, words = _recovered(verdict)
    return _outcome(verdict, words, median <= 5)


def slow_readers(stage: Stage) -> Outcome:
    """One client reads nothing, one 1 KiB a second, while their customer gets large events."""
    with stage.running() as run:
        gateway = run.system.gateways[0]
        run.sleep(CALM)
        began, before = now(), memory(gateway.pid)
        highest = before
        token = run.system.processes.token("slow", lifetime_seconds=600)
        with (
            SlowReader(gateway.port, token, bytes_per_second=0),
            SlowReader(gateway.port, token, bytes_per_second=1024),
            run.system.sender() as sender,
        ):
            while closed_as_slow(gateway) < 2 and now() - began < 60:
                post_large_event(sender, "slow")
                highest = max(highest, memory(gateway.pid))
            closed = now() - began
        run.sleep(2)
        verdict = run.finish()
    p99, calm = verdict.quantile(0.99, since=began, until=began + closed), verdict.quantile(0.99, until=began)
    words = (
        f"both closed with 4408 after {closed:.1f} s, the gateway took {highest - before:.1f} MiB at most; "
    )
    words += f"others' p99 {p99 * 1000:.0f} ms meanwhile, {calm * 1000:.0f} ms before"
    return _outcome(verdict, words, closed < 30, highest - before < 20, p99 < max(0.5, 3 * calm))


def memory(pid: int) -> float:
    """MiB that a process has in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def closed_as_slow(gateway: ReceiverProcess) -> int:
    text = httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    found = re.search(r'orderbell_connections_closed_total\{code="4408"\} (\d+)', text)
    return int(found[1]) if found else 0


def post_large_event(sender: httpx2.Client, customer: str) -> None:
    event = {"specversion": "1.0", "id": str(now()), "source": "/chaos", "type": "large"}
    event |= {"channel": f"customer:{customer}", "data": "x" * 60_000}
    answer = sender.post("/events", json=event, headers={"content-type": "application/cloudevents+json"})
    assert answer.status_code == 202, answer.text


def database_restored(stage: Stage) -> Outcome:
    """The database restored from an older copy: every client gets a reset."""
    with stage.running() as run:
        database, copy = stage.directory / "orderbell.db", stage.directory / "copy.db"
        sender = run.system.senders[0]
        run.sleep(CALM)
        _copy(database, copy)
        run.sleep(CALM)
        run.callers.set_rate(0)
        wait_until(lambda: run.callers.status().under_way == 0, 20)
        run.settle()
        began = now()
        sender.kill()
        for name in ("orderbell.db-wal", "orderbell.db-shm"):
            (stage.directory / name).unlink(missing_ok=True)
        copy.replace(database)
        nemesis.start(sender)
        restored = now()
        run.callers.set_rate(stage.load.rate)
        run.sleep(10)
        verdict = run.finish(allowed=frozenset({"epoch"}))
    reset = {
        entry.device: entry.at
        for entry in read([stage.directory / "clients.jsonl"])
        if isinstance(entry, Reset)
    }
    words = f"{len(reset)} of {len(run.devices)} devices got a reset, the last "
    words += f"{max(reset.values(), default=restored) - restored:.1f} s after the sender was back "
    words += f"(it was away for {restored - began:.1f} s)"
    return _outcome(verdict, words, reset.keys() == run.devices.keys())


def _copy(database: Path, copy: Path) -> None:
    """A backup as SQLite makes one, while it is written to."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def rolling_restart(stage: Stage) -> Outcome:
    """Three gateways and two senders behind HAProxy, restarted one after the other."""
    from tests.interop import proxies  # it imports pytest, which no other scenario needs

    drain, ready_delay, rate = 30.0, 3.0, 200
    come_seconds = stage.load.customers / 250
    with replace(stage, load=replace(stage.load, come_seconds=come_seconds)).running(
        database="postgres",
        gateways=3,
        senders=2,
        drain_seconds=drain,
        front=partial(proxies.running, "haproxy", stage.directory, stage.process_group),
        ready_delay_seconds=str(ready_delay),
        handshakes_per_second=str(rate),
    ) as run:
        gateways = run.system.gateways
        run.sleep(CALM)
        began = now()
        with Figures([gateway.url for gateway in gateways]) as figures:
            processes: list[SenderProcess | ReceiverProcess] = [*run.system.senders, *gateways]
            for process in processes:
                run.sleep(CALM)
                run.progress(f"restarting {run.system.name(process)}")
                asked = time.monotonic()
                code = process.terminate(timeout=drain + ready_delay + 30)
                process.start()
                run.progress(f"restarted, with {code}, after {time.monotonic() - asked:.1f} s")
            run.sleep(2 * CALM)
            run.wait_connected()
        seconds = now() - began
        verdict = run.finish()
    p99, worst = figures.quantile(0.99), figures.worst_quantile(0.99)
    words = (
        f"all restarted within {seconds:.0f} s under {verdict.answered / seconds:.0f} orders a second;"
        f" one gateway took {figures.connects:.0f} connections a second at most, of {rate} set,"
        f" and refused {figures.refused}, which came back; order to frame by {figures.frames} samples: p99 at"
        f" most {p99:g} s, in its worst ten seconds {worst:g} s"
    )
    # A refused handshake breaks no claim: refusing, with the time to come back, is how the rate is kept. All
    # devices are connected again, or `wait_connected` would have failed.
    claims = {
        "connections a second below the rate": figures.connects < rate,
        "p99 of order to frame at most a second throughout": worst <= 1,
        "an age sampled a second": figures.frames > seconds,
        f"no POST repeated ({dict(run.answers)})": not run.answers,
        f"only drained connections ended ({sorted(set(verdict.ends))})": set(verdict.ends) <= {1012},
    }
    broken = "".join(f"\n   NOT: {claim}" for claim, kept in claims.items() if not kept)
    return _outcome(verdict, words + broken, *claims.values())


SCENARIOS: dict[str, Callable[[Stage], Outcome]] = {
    story.__name__.replace("_", "-"): story
    for story in (
        gateway_killed,
        gateway_drained,
        redis_killed,
        redis_away,
        redis_frozen,
        redis_black_hole,
        redis_failed_over,
        redis_failed_over_idle,
        sender_killed,
        relays_racing,
        postgres_restarted,
        slow_readers,
        database_restored,
        rolling_restart,
    )
}
