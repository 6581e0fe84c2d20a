"""Keep what a training prints as a file: lines without control sequences, the first and the last ones."""

import os
import re
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.runtime.files import write_atomically
from pipelines.runtime.streams import NAMES, Watcher, unwatch, watch

FILE = "terminal.log"
HEAD, TAIL = 1 << 18, 1 << 18  # bytes that are kept of the beginning and of the end
MARK = "[{:,} bytes are left out here]\n"
_RECORDING: list["TerminalLog"] = []  # of the blocks that are active
_MARK = re.compile(rb"^\[([\d,]+) bytes are left out here\]\n", re.MULTILINE)
_CONTROLS = re.compile(r"(\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\^_]|[\r\n])")
_REDRAWING = "AJK"  # final letters of control sequences: cursor up, erase in display, erase in line


class LineFilter:
    """Turns what is written to a terminal into its lines: of a line that is drawn again, the last state is kept."""

    def __init__(self) -> None:
        self._line, self._last = "", ""
        self._held = ""  # a complete line that may still be drawn again: the cursor can be moved up to it
        self._returned = self._redrawn = False

    def feed(self, text: str) -> str:
        """Return the lines that a text completes."""
        if "\r" not in text and "\x1b" not in text and not (self._returned or self._held or self._redrawn):
            complete, newline, self._line = (self._line + text).rpartition("\n")
            return complete + newline
        return "".join(self._lines(text))

    def rest(self) -> str:
        """Return the last line, if it is incomplete and was not drawn again, as progress bars are."""
        return self._held + ("" if self._redrawn or not self._line else f"{self._line}\n")

    def _lines(self, text: str) -> Iterator[str]:
        for token in _CONTROLS.split(text):
            if token == "\n":
                yield self._held
                line = f"{self._line}\n"
                is_new = not self._redrawn or (self._line != "" and line != self._last)
                if is_new and not self._redrawn:
                    yield line
                self._held = line if is_new and self._redrawn else ""
                self._last, self._line, self._returned, self._redrawn = line, "", False, False
            elif token == "\r":
                self._returned = True
            elif token.startswith("\x1b"):
                if token[1] == "[" and token[-1] in _REDRAWING:
                    self._line, self._redrawn = "", True
                    self._held = "" if token[-1] == "A" else self._held
            elif token:
                yield self._held
                self._held = ""
                if self._returned:
                    self._line, self._returned, self._redrawn = "", False, True
                self._line += token


class TerminalLog:
    """What this process prints from `start` on: in memory at first, in a file once `attach` is called.

    It never raises: what cannot be written is not kept. Processes that are forked from this one keep nothing.
    """

    def __init__(self) -> None:
        self._filters = {name: LineFilter() for name in NAMES}
        self._lock = threading.RLock()
        self._early = bytearray()  # before there is a file
        self._path: Path | None = None
        self._descriptor: int | None = None
        self._size, self._pid, self._closed = 0, os.getpid(), False
        self._watcher = Watcher(after=self._record, logging=True)

    def start(self) -> None:
        """Start to keep what is printed."""
        watch(self._watcher)

    def attach(self, path: Path) -> None:
        """Write everything to a file, and append to what it has already."""
        with self._lock:
            self._path = path
            try:
                self._open()
                self._append(bytes(self._early))
            except OSError:
                self._closed = True

    @property
    def is_attached(self) -> bool:
        return self._path is not None

    def add_error(self, error: BaseException, *, where: bool) -> None:
        """Add an exception that ends the training, with its traceback if `where` it was raised matters."""
        lines = traceback.format_exception(error) if where else traceback.format_exception_only(error)
        self._record("stderr", "".join(lines))

    def close(self) -> None:
        """Stop, and leave the file with its final content."""
        unwatch(self._watcher)
        with self._lock:
            if self._closed:
                return
            for name in NAMES:
                self._keep(self._filters[name].rest())
            self._closed = True
            try:
                if self._descriptor is not None:
                    self._shorten(HEAD + TAIL)
                    os.close(self._descriptor)
            except OSError:
                pass

    def _record(self, name: str, text: str) -> None:
        if not self._closed and os.getpid() == self._pid:
            with self._lock:
                self._keep(self._filters[name].feed(text))

    def _keep(self, text: str) -> None:
        if not text or self._closed:
            return
        content = text.encode(errors="replace")
        if self._descriptor is None:
            self._early += content[: max(0, HEAD - len(self._early))]
            return
        try:
            self._append(content)
        except OSError:  # a full disk, which the training reports if it needs to write
            self._closed = True

    def _append(self, content: bytes) -> None:
        assert self._descriptor is not None
        self._size += os.write(self._descriptor, content) if content else 0
        if self._size > HEAD + 2 * TAIL:
            self._shorten(HEAD + TAIL)

    def _open(self) -> None:
        assert self._path is not None
        binary = getattr(os, "O_BINARY", 0)  # Windows
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | binary, 0o644)
        self._size = os.fstat(self._descriptor).st_size

    def _shorten(self, limit: int) -> None:
        """Leave out the middle of a file that is larger than a limit."""
        assert self._path is not None
        assert self._descriptor is not None
        if self._size <= limit + len(MARK.format(self._size)):
            return
        os.close(self._descriptor)
        write_atomically(self._path, shorten(self._path.read_bytes()))
        self._open()


def shorten(content: bytes) -> bytes:
    """Return the first `HEAD` and the last `TAIL` bytes, in whole lines, and between them how many are omitted."""
    mark = _MARK.search(content, 0, HEAD + 100)
    start = mark.start() if mark else content.rfind(b"\n", 0, HEAD) + 1 or HEAD
    rest = content[mark.end() :] if mark else content[start:]
    left_out = int(mark[1].replace(b",", b"")) if mark else 0
    if len(rest) > TAIL:
        cut = rest.find(b"\n", len(rest) - TAIL - 1) + 1 or len(rest) - TAIL
        rest, left_out = rest[cut:], left_out + cut
    return content[:start] + (MARK.format(left_out).encode() if left_out else b"") + rest


@contextmanager
def recorded_terminal() -> Iterator[TerminalLog]:
    """Keep what is printed in the block: in the folder of the first run that is created there."""
    log = TerminalLog()
    log.start()
    _RECORDING.append(log)
    try:
        yield log
    finally:
        _RECORDING.remove(log)
        log.close()


def attach_current(folder: Path) -> TerminalLog | None:
    """Write what is kept now to the folder of a run, unless it has one already; None if nothing is kept."""
    log = _RECORDING[-1] if _RECORDING else None
    if log is None or log.is_attached:
        return None
    log.attach(folder / FILE)
    return log
