"""The ways a browser can be connected; all of them say the same things."""
