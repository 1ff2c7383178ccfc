"""Runs a service without a safeguard: `python -m tests.chaos.without SAFEGUARD SERVICE ARGUMENTS`."""

from __future__ import annotations

import runpy
import sys

from tests.chaos.without import SAFEGUARDS


def main() -> None:
    _, safeguard, service, *arguments = sys.argv
    SAFEGUARDS[safeguard](setattr)
    sys.argv = [service, *arguments]
    runpy.run_module(service, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
