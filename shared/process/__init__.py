"""What both services need around them in their process: logs, listening, children, the server."""
