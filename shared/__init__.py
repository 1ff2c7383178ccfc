"""What Orderbell's sender and receiver share: events, channels, cursors, Redis, settings.

It imports neither of them.

Its exceptions, by whose fault they are (shared/errors.py); `python -m tests.test_errors` prints them:

    CallerError
        CallerLeft
        InvalidBody
        InvalidChannel
        InvalidCursor
        InvalidEvent
            EventTooLarge
        InvalidJson
            NotJson
        NotAlone
        RequestRefused
    OperatorError
        AnotherInstallation
        CannotStart
        Damaged
        InUse
        InvalidDatabaseUrl
        InvalidLiveKey
        InvalidOrigin
        InvalidRedisUrl
        InvalidSettings
        NotStarted
        UnusableProxy
    NeighbourError
        CannotConnect
        ChildEnded
        CommandRefused
        Ended
        NoAnswer
            Refused
        NotPrimary
        WatchRefused
    OrderbellError
        Problem
"""

__version__ = "0.1.0"
