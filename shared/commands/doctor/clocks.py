"""Clocks: tokens and tickets end at times of day."""

from __future__ import annotations

from shared.commands.doctor.findings import Finding, Verdict

WARN_SECONDS = 5
FAIL_SECONDS = 30  # the leeway that tokens get


def clock(what: str, ahead_seconds: float) -> Finding:
    off = abs(ahead_seconds)
    verdict = Verdict.OK if off < WARN_SECONDS else Verdict.WARN
    if off > FAIL_SECONDS:
        verdict = Verdict.FAIL
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    fix = "" if verdict is Verdict.OK else "run a time service (chrony, systemd-timesyncd) on both machines"
    return Finding(what, verdict, f"{off:.1f} s {direction} ours", fix)
