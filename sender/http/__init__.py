"""The sender's HTTP side: routes, bodies, pages."""
