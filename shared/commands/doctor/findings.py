"""Findings: one line for a person, and the line to change."""

from __future__ import annotations

import enum
from typing import NamedTuple

import click


class Verdict(enum.Enum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    what: str
    verdict: Verdict
    says: str
    fix: str = ""  # what to change, and how


_COLORS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


def ok(what: str, says: str) -> Finding:
    return Finding(what, Verdict.OK, says)


def warn(what: str, says: str, fix: str = "") -> Finding:
    return Finding(what, Verdict.WARN, says, fix)


def fail(what: str, says: str, fix: str = "") -> Finding:
    return Finding(what, Verdict.FAIL, says, fix)


def show(findings: list[Finding]) -> None:
    width = max(len(finding.what) for finding in findings)
    for what, verdict, says, fix in findings:
        click.echo(f"{click.style(f'{verdict.value:4}', fg=_COLORS[verdict])}  {what:{width}}  {says}")
        if fix:
            click.echo(f"{'':4}  {'':{width}}  → {fix}")
