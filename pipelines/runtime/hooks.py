"""Replace a hook of one LightningModule or LightningDataModule instance."""

import functools
from collections.abc import Callable
from typing import Any


def replace_hook(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Make `owner.name(...)` call `replacement(original, ...)`.

    Lightning still sees whether the class overrides the hook.
    """
    original = getattr(owner, name)

    @functools.wraps(original)
    def hook(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    owner.__dict__[name] = hook


def run_after_hook(owner: Any, name: str, work: Callable[[], None]) -> None:
    """Make `owner.name(...)` call `work` at its end."""

    def both(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        work()
        return result

    replace_hook(owner, name, both)
