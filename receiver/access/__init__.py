"""Who may connect: tokens, tickets, origins."""
