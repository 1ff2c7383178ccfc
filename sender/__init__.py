"""The service that records completed orders and publishes them: HTTP in, database first, Redis behind it."""
