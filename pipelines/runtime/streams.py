"""Watch what this process prints: one wrapper around sys.stdout and sys.stderr. Imports nothing heavy."""

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TextIO

NAMES = ("stdout", "stderr")


@dataclass(frozen=True, eq=False)
class Watcher:
    """What is called when something is printed.

    Attributes:
        before: Called before each write.
        after: Called after each write with the name of the stream, "stdout" or "stderr", and the text.
        logging: Whether handlers of `logging` that write to the stream itself are watched too.
    """

    before: Callable[[], None] = lambda: None
    after: Callable[[str, str], None] = lambda name, text: None
    logging: bool = False


_WATCHERS: list[Watcher] = []
_KEPT: list[Any] = []  # wrappers that a `print` may still use when it has removed them: without them, it would crash
_HANDLERS: list[tuple[Any, Any]] = []  # handlers of `logging`, with the streams that they had


class WatchedStream:
    """A stream whose writes are watched, as long as there are watchers.

    Args:
        name: "stdout" or "stderr".
        stream: The stream that is written to.
    """

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name_of_stream, self.stream = name, stream

    def write(self, text: str) -> int:
        for watcher in tuple(_WATCHERS):
            watcher.before()
        count = self.stream.write(text)
        for watcher in tuple(_WATCHERS):
            watcher.after(self.name_of_stream, text)
        return count

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def watch(watcher: Watcher) -> None:
    """Call a watcher whenever something is printed, until `unwatch`."""
    if watcher not in _WATCHERS:
        _WATCHERS.append(watcher)
    for name in NAMES:
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, WatchedStream):  # None: without a console, on Windows
            setattr(sys, name, WatchedStream(name, stream))
            _KEPT.append(getattr(sys, name))
    if watcher.logging:
        _watch_handlers()


def unwatch(watcher: Watcher) -> None:
    """Call a watcher no longer; without watchers, the streams are what they were before."""
    if watcher in _WATCHERS:
        _WATCHERS.remove(watcher)
    if watcher.logging:
        while _HANDLERS:
            handler, stream = _HANDLERS.pop()
            handler.setStream(stream)
    if _WATCHERS:
        return
    for name in NAMES:
        if isinstance(stream := getattr(sys, name), WatchedStream):
            setattr(sys, name, stream.stream)


def bare_stream(name: str) -> Any:
    """Return sys.stdout or sys.stderr, without what watches it."""
    stream = getattr(sys, name)
    return stream.stream if isinstance(stream, WatchedStream) else stream


def _watch_handlers() -> None:
    """Let handlers of `logging` that were made earlier, such as Lightning's, write to the watched streams."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    watched = [stream for name in NAMES if isinstance(stream := getattr(sys, name), WatchedStream)]
    for handler in {handler for logger in loggers for handler in getattr(logger, "handlers", ())}:
        for stream in watched:
            if isinstance(handler, logging.StreamHandler) and handler.stream is stream.stream:
                _HANDLERS.append((handler, handler.setStream(stream)))
