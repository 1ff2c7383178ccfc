"""Clocks, because tokens and tickets expire at times of day."""

from __future__ import annotations

from shared.commands.doctor.findings import Finding, Verdict

WARN_SECONDS = 5
FAIL_SECONDS = 30  # the leeway that tokens get


def clock(what: str, ahead_seconds: float) -> Finding:
    off = abs(ahead_seconds)
    if off < WARN_SECONDS:  # HTTP's Date has whole seconds, and may be a second old
        return Finding(what, Verdict.OK, "agrees with ours")
    verdict = Verdict.WARN if off <= FAIL_SECONDS else Verdict.FAIL
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    fix = "run a time service (chrony, systemd-timesyncd) on both machines"
    return Finding(what, verdict, f"{off:.1f} s {direction} ours", fix)
