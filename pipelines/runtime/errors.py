"""Errors that are no faults of the program."""


class UserError(ValueError):
    """What the user asked for cannot be done; the message says what, and what is allowed instead. Exit code 2."""


class StoppedError(Exception):
    """A run was ended on purpose; the message says by what. The run is KILLED."""
