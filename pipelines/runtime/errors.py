"""Exceptions that are not bugs."""


class UserError(ValueError):
    """The request is invalid or cannot be fulfilled; the message says why and what is allowed.

    Attributes:
        exit_code: Of a command that it ends.
    """

    exit_code = 2

    __module__ = "litlab"  # a traceback names it as `import litlab` does

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the message alone."""
        return [f"{type(self).__name__}: {self}", *getattr(self, "__notes__", [])]


class StoppedError(Exception):
    """A run was stopped on purpose; the message says by what. The run's status becomes KILLED."""
