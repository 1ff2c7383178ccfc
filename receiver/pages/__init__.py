"""The shop page, the browser client's files, development mode."""
