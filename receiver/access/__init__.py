"""Which clients may connect: tokens, tickets, origins."""
