"""Redis and Valkey: one way to connect, the keys, the channel log and its scripts."""
