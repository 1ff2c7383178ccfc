"""Long polling and polling: each request is answered with what has come since the last one."""
