"""STOMP over SockJS's HTTP transports, for clients that cannot use WebSockets."""
