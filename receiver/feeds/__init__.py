"""Channels as a gateway knows them, and how what was missed is caught up."""
