"""Orderbell's benchmarks, for users: its own figures, beside a floor and the peers, on this machine."""
