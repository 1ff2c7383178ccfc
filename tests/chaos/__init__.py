"""Real processes, a proxy on every edge, and faults: what was accepted must be shown once, in order.

`make chaos`, or `python -m tests.chaos scenario NAME`. Everything stands in a ledger; a checker reads it.
"""
