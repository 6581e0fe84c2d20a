"""Exceptions that are not bugs."""


class UserError(ValueError):
    """The request is invalid or cannot be fulfilled; the message says why and what is allowed. Exit code 2."""


class StoppedError(Exception):
    """A run was stopped on purpose; the message says by what. The run's status becomes KILLED."""
