"""Server-Sent Events, HTML 9.2."""
