"""Autobahn's fuzzing client against our WebSocket codec; see tests/interop/test_autobahn.py."""
