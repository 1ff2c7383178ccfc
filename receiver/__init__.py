"""Orderbell's gateway: hears Redis and hands each customer's events to their browsers."""
