"""Webhooks: reporting to the shop's own server what became of alerts."""
