"""From the outbox to Redis: the relay and what watches over it."""
