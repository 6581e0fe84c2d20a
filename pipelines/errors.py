"""The one error that is the user's to mend."""


class UserError(ValueError):
    """What the user asked for cannot be done; the message says what, and what is allowed instead. Exit code 2."""
