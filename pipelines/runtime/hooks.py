"""Replace a hook of one LightningModule or LightningDataModule instance."""

import functools
import inspect
from collections.abc import Callable
from typing import Any


class _Hook:
    """A hook of an instance that calls a replacement. A deep copy and a pickle of the instance have the original."""

    def __init__(self, owner: Any, name: str, replacement: Callable[..., Any]) -> None:
        self._owner, self._name = owner, name
        self._original, self._replacement = getattr(owner, name), replacement
        functools.update_wrapper(self, inspect.unwrap(self._original))  # Lightning sees whether a class overrides it

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._replacement(self._original, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._owner, self._name)  # the instance is still empty then, so it is the method of its class


def replace_hook(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Make `owner.name(...)` call `replacement(original, ...)`."""
    owner.__dict__[name] = _Hook(owner, name, replacement)


def remove_hooks(owner: Any) -> None:
    """Give an instance back the hooks that it had before `replace_hook`."""
    for name, value in list(vars(owner).items()):
        original = value
        while isinstance(original, _Hook):
            original = original._original
        if original is value:
            continue
        if inspect.ismethod(original) and original.__self__ is owner:
            del owner.__dict__[name]
        else:
            owner.__dict__[name] = original


def run_after_hook(owner: Any, name: str, work: Callable[[], None]) -> None:
    """Make `owner.name(...)` call `work` at its end."""

    def both(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        work()
        return result

    replace_hook(owner, name, both)
