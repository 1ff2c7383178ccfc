"""What Orderbell's sender and receiver agree on: events, channels, cursors, Redis, settings.

It imports neither of them.
"""

__version__ = "0.1.0"
