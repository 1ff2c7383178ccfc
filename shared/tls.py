"""TLS on the way to a sender, the same for gateways and tools.

A sender behind https is known by its certificate and its name. ORDERBELL_SENDER_CA has the certificates of a
company's own authority; then no other authority vouches for a sender.
"""

from __future__ import annotations

import ssl


def tls_to_sender(authority: str | None, *, beside_public: bool = False) -> ssl.SSLContext:
    """`authority`: certificates in PEM; without them the system's authorities count. `beside_public`: count
    those, too, for a client that does not ask senders alone. Raises `ValueError`.
    """
    if authority is None:
        import httpx2  # it knows where each system keeps them

        return httpx2.create_ssl_context(trust_env=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # from TLS 1.2; checks certificate and name
    if beside_public:
        context.load_default_certs()
    try:
        context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError):
        raise ValueError("expected certificates in PEM; …_CA_FILE names a file that holds them") from None
    return context
