"""STOMP over SockJS's HTTP transports, for clients that no WebSocket reaches."""
