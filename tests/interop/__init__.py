"""Other people's proxies and clients, and our own of an earlier version. All of it is `long`."""
