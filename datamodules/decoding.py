"""Decode image files on all cores.

Most of the time of a small image is spent in Python, where threads of one process wait for each other. Many images are
therefore decoded by processes. Each is a new interpreter that imports neither torch nor the user's script, so that it
can be started anywhere: beside threads, in a daemonic process, and on systems without fork. It ends with its pipe.

Shapes: N images, C channels, H rows, W columns.
"""

import json
import os
import pickle
import queue
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.images import Pixels, read_pixels

IMAGES_PER_PROCESS = 1000  # at least: a process starts in about the time in which it decodes so many small images
MAX_PROCESSES = 32  # more than these, one process cannot collect the pixels of
READY = b"\nlitlab decodes images\n"
PROGRAM = """
import json, os, signal, sys
answers = os.dup(1)
os.dup2(2, 1)  # what an import prints is no answer
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = json.loads(sys.argv[1])
from datamodules.decoding import serve
serve(answers)
"""


@dataclass(frozen=True)
class Decoder:
    """Decodes images of a folder to one shape; the arguments are those of `load_images`."""

    folder: Path
    shape: tuple[int, int, int]
    resize: bool

    def __call__(self, names: Sequence[str]) -> Pixels:
        """Return the pixels of image files, shape (N, C, H, W).

        Raises:
            FileNotFoundError: A file does not exist.
            ValueError: A file is not a readable image of the right size.
        """
        pixels_NCHW = np.empty((len(names), *self.shape), dtype=np.uint8)
        for index, name in enumerate(names):
            pixels_NCHW[index] = read_pixels(self.folder / name, self.shape, resize=self.resize)
        return pixels_NCHW


class DecodingProcess:
    """A process that decodes images, asked and answered with pickles, which only this program writes."""

    def __init__(self, decoder: Decoder) -> None:
        path = json.dumps([str(Path(__file__).parents[1]), *map(str, sys.path)])
        command = [sys.executable, "-P", "-c", PROGRAM, path]  # -P: no modules of the current folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        # A new session, to which a terminal does not send Ctrl-C: `stop` ends the process.
        self._process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, start_new_session=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._decoder = decoder
        self._is_ready = False

    def __call__(self, names: Sequence[str]) -> Pixels:
        """Decode images as the decoder does; its warnings and errors are those of this process."""
        if not self._starts():
            return self._decoder(names)
        try:
            pickle.dump((self._decoder, names), self._stdin)
            self._stdin.flush()
            decoded, warned = pickle.load(self._stdout)  # noqa: S301, of our own process
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            self._process.kill()  # it may wait for a question
            code = self._process.wait()
            raise ChildProcessError(f"a process that decodes images ended with exit code {code}") from error
        for warning in warned:
            warnings.warn(warning, stacklevel=2)
        if isinstance(decoded, Exception):
            raise decoded
        return decoded  # type: ignore[no-any-return]

    def _starts(self) -> bool:
        """Wait until the process can decode; return False if it ended before, such as by a failed import."""
        if not self._is_ready and self._process.returncode is None:
            self._is_ready = any(line == READY[1:] for line in self._stdout)  # sitecustomize may print lines before
            if not self._is_ready and (code := self._process.wait()) >= 0:
                message = f"a process that decodes images ended at its start, with exit code {code}; threads decode"
                warnings.warn(message, stacklevel=3)
        return self._is_ready or self._process.returncode < 0

    def stop(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        self._stdout.close()
        with suppress(OSError):  # a question that was not sent
            self._stdin.close()


def serve(pipe: int) -> None:
    """Decode what the parent process asks for, until it is gone; `pipe` is the descriptor for the answers."""
    questions, answers = sys.stdin.buffer, os.fdopen(pipe, "wb", closefd=False)  # closed by the end of the process
    with suppress(EOFError, BrokenPipeError):
        answers.write(READY)
        answers.flush()
        while True:
            decoder, names = pickle.load(questions)  # noqa: S301, of our own parent
            pickle.dump(_answer(decoder, names), answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()


def _answer(decoder: Decoder, names: Sequence[str]) -> tuple[Pixels | Exception, list[Warning]]:
    """Return the pixels or why there are none, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decoded: Pixels | Exception
        try:
            decoded = decoder(names)
        except Exception as error:
            decoded = error
    return decoded, [warning.message for warning in caught if isinstance(warning.message, Warning)]


@contextmanager
def parallel(decoder: Decoder, images: int) -> Iterator[tuple[Callable[[Sequence[str]], Pixels], int]]:
    """Yield a function that decodes like `decoder`, and how many threads should call it at a time.

    Args:
        decoder: Decodes images in this process.
        images: How many images there are. For few of them, or if the system starts no process, there are none.
    """
    processes: list[DecodingProcess] = []
    free: queue.SimpleQueue[DecodingProcess] = queue.SimpleQueue()

    def decode(names: Sequence[str]) -> Pixels:
        process = free.get()
        try:
            return process(names)
        finally:
            free.put(process)

    try:
        with suppress(OSError):
            for _ in range(_count(images)):
                processes.append(DecodingProcess(decoder))
                free.put(processes[-1])
        yield (decode, len(processes)) if processes else (decoder, _cores())
    finally:
        for process in processes:
            process.stop()


def _count(images: int) -> int:
    """Return how many processes decode so many images; none for one that would work alone."""
    count = min(_cores(), MAX_PROCESSES, images // IMAGES_PER_PROCESS)
    return count if count > 1 else 0


def _cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
