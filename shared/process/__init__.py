"""What both services need of their process: logs, listening, children, the server."""
