"""Orderbell's sender records completed orders and publishes them: HTTP in, database first, then Redis.

Its exceptions, by whose fault they are (shared/errors.py); `python -m tests.test_errors` prints them:

    CallerError
        InvalidKey
        InvalidOrder
        InvalidRevocation
        KeyReused
        LaneFull
        NoAlerts
        NotResendable
        NotSeeable
        OrderCancelled
        OrderConflict
        UnknownAlert
        UnknownOrder
    OperatorError
        DatabaseUnusable
    NeighbourError
        DatabaseError
            DatabaseFault
            DatabaseFull
            DatabaseUnavailable
                DatabaseBusy
                DatabaseDamaged
                RowHeld
"""
