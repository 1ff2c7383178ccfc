"""The table at the end of a run."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.checker import Verdict


def table(verdict: Verdict) -> str:
    """Faults by kind, then everything together, then examples of what went wrong."""
    kinds = Counter(recovery.fault.kind for recovery in verdict.recoveries)
    lines = [f"| {'fault':24} | times | devices hit | recovered, median | worst |", "|---|---|---|---|---|"]
    for kind in sorted(kinds):
        median, worst = verdict.recovered(kind)
        hit = sum(r.devices for r in verdict.recoveries if r.fault.kind == kind)
        lines.append(f"| {kind:24} | {kinds[kind]} | {hit} | {median:.1f} s | {worst:.1f} s |")
    lines += [
        "",
        "| events | devices | shown | lost | twice | out of order | foreign | never posted | unstored |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| {verdict.stored:,} | {verdict.devices} | {verdict.shown:,} | {verdict.lost} | {verdict.twice} "
        f"| {verdict.out_of_order} | {verdict.foreign} | {verdict.never_posted} | {verdict.unstored} |",
        *lives(verdict),
        "",
        line(verdict),
        *verdict.examples,
    ]
    return "\n".join(lines)


def lives(verdict: Verdict) -> list[str]:
    """What became of alerts; nothing of a run that gives them no life."""
    if not verdict.lists:
        return []
    return [
        "",
        "| retracted | expiring | read | pop-ups | lists | reappeared | left standing | disagreeing | undone "
        "| went back | miscounted |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        f"| {verdict.retracted:,} | {verdict.expired:,} | {verdict.read:,} | {verdict.popped_up:,} "
        f"| {verdict.lists:,} | {verdict.reappeared} | {verdict.left_standing} | {verdict.disagreeing} "
        f"| {verdict.undone} | {verdict.went_back} | {verdict.miscounted} |",
    ]


def line(verdict: Verdict) -> str:
    """All of it, short."""
    ends = ", ".join(f"{count} × {code}" for code, count in sorted(verdict.ends.items())) or "none"
    return (
        f"{verdict.lost} lost / {verdict.twice} twice / {verdict.out_of_order} out of order; "
        f"{verdict.answered:,} orders answered, {verdict.unanswered} not, {verdict.refused} refused; "
        f"{verdict.shown:,} shown, p50 {verdict.quantile(0.5) * 1000:.0f} ms, "
        f"p99 {verdict.quantile(0.99) * 1000:.0f} ms, worst {verdict.quantile(1) * 1000:.0f} ms; "
        f"{verdict.misplaced} misplaced, resets {dict(verdict.resets)}, {verdict.given_up} holes given up, "
        f"{verdict.excused} excused, {verdict.late_without_fault} late without a fault; "
        f"connections ended: {ends}"
    )


def clean_up(directory: Path, *, keep: bool, say: Callable[[str], None]) -> None:
    if keep:
        say(f"ledgers and logs: {directory}")
    else:
        shutil.rmtree(directory)
