"""Orderbell's sender records completed orders and publishes them: HTTP in, database first, then Redis."""
