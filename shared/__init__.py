"""What sender and receiver agree on: events, channels, cursors, the Redis side of a channel, settings.

It imports neither of them.
"""

__version__ = "0.1.0"
