"""Orderbell's gateway: hears Redis and hands each customer's events to their browsers.

Its exceptions, by whose fault they are (shared/errors.py); `python -m tests.test_errors` prints them:

    CallerError
        BadMessage
        FrameRefused
        InvalidFrame
        InvalidToken
            ExpiredToken
            ForbiddenToken
            FutureToken
        TokenInUrl
        TooManyTickets
        UnknownSubprotocol
        Unreadable
    OperatorError
        InvalidHook
    NeighbourError
        IssuerFailed
        KeysUnavailable
        RevocationsUnavailable
            HistoryUnavailable
                HistoryRefused
        SenderAway
        SenderSilent
        Unavailable
"""
