"""The ways a browser can be connected; all of them carry the same messages."""
