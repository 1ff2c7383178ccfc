"""Long polling and polling: requests that are answered, again and again, with what came since."""
