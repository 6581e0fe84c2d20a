"""Processes of Python that start in milliseconds: forked from a server that has imported what litlab imports.

The server has one thread, so that a fork is safe. A process gets its own arguments, environment, folder, standard
streams and default signals, and runs its exit functions. MLflow is not in its `sys.modules` before it imports it, which
takes no time. For claims about how Python starts and ends, or about the time of imports, use `subprocess`.
"""

import atexit
import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from multiprocessing import process, util
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

COMMAND = "import sys, litlab; from pipelines.cli import main; sys.exit(main())"
PRELOAD = (
    "sweeps.workers.worker",
    "sweeps.search.sweep",
    "sweeps.seeds.fit_seeds",
    "pipelines.training.fit",
    "pipelines.training.resume",
    "pipelines.evaluation.baseline",
    "pipelines.evaluation.figures",
    "datamodules.digits",
    "modules.mlp",
    "modules.probes",
    "modules.schedules",
    "sklearn.datasets",
    "sklearn.model_selection",
    "torch._dynamo",
    "torch.export._trace",
    "tests.quick_disk",
    "tests.small_figures",
)
HIDDEN = ("mlflow.tracking.client", "mlflow.store.tracking.sqlalchemy_store", "mlflow.pyfunc")
NO_THREADS = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}  # of torch and of pyarrow
MAX_REQUEST = 1 << 17  # bytes: arguments and environment


class WarmServer:
    """The server of warm processes, seen from the tests. After `close`, its processes continue."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options: dict[str, Any] = {"cwd": Path(__file__).parents[1], "env": {**os.environ, **NO_THREADS}}
        self._process = subprocess.Popen([sys.executable, __file__], stdin=theirs, stdout=subprocess.DEVNULL, **options)
        theirs.close()

    def close(self) -> None:
        self.socket.close()
        self._process.wait()


class WarmProcess(subprocess.Popen[Any]):
    """As `Popen([sys.executable, "-c", program, *args])`; of the options, cwd, env, streams and new sessions work."""

    def __init__(self, server: WarmServer, program: str, *args: str, **options: Any) -> None:
        self._server = server
        super().__init__(["-c", program, *args], **options)

    def _execute_child(self, args: Any, *options: Any) -> None:
        cwd, env, streams, new_session = options[4], options[5], options[9:15], options[-2]
        values = {"args": args, "cwd": str(cwd or Path.cwd()), "env": env or dict(os.environ), "session": new_session}
        request = json.dumps(values).encode()
        assert len(request) < MAX_REQUEST
        self._answers, theirs = os.pipe()
        fds = [number if fd == -1 else fd for number, fd in enumerate((streams[0], streams[3], streams[5]))]
        socket.send_fds(self._server.socket, [request], [*fds, theirs])
        os.close(theirs)
        self._close_pipe_fds(*streams)  # type: ignore[attr-defined]
        self._child_created = True
        self.pid = self._next_answer()

    def _next_answer(self) -> int:
        """Return the process id, and the next time the status of its end."""
        answer = os.read(self._answers, 4)
        assert answer, "the server of warm processes has ended"
        return int.from_bytes(answer, "little")

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if flags & os.WNOHANG and not select.select([self._answers], [], [], 0)[0]:
            return 0, 0
        status = self._next_answer()
        os.close(self._answers)
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


class HiddenModules(Loader, MetaPathFinder):
    """Modules of MLflow that are imported already. They come into `sys.modules` when a process imports the package."""

    def __init__(self) -> None:
        for name in HIDDEN:
            importlib.import_module(name)
        names = [name for name in sys.modules if name.partition(".")[0] == "mlflow"]
        self._modules = {name: sys.modules.pop(name) for name in names}
        self._spec = self._modules["mlflow"].__spec__

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == "mlflow" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        sys.modules.update(self._modules)
        return self._modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
        sys.meta_path.remove(self)


def serve() -> NoReturn:
    """Fork a process for each request, and answer with its id and, when it has ended, with its status."""
    requests = socket.socket(fileno=os.dup(0))
    sys.path[0] = str(Path.cwd())  # the project, not the folder of this file
    for module in PRELOAD:
        importlib.import_module(module)
    assert "mlflow" not in sys.modules
    sys.meta_path.insert(0, HiddenModules())
    assert _num_threads() == 1, "an import has started a thread: a fork would not be safe"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    clients: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests, ended], [], [])
        if ended in ready:
            os.read(ended, 100)
            _report_ended(clients)
        if requests in ready:
            request, fds, _, _ = socket.recv_fds(requests, MAX_REQUEST, 4)
            if not request:
                os._exit(0)
            pid = os.fork()
            if not pid:
                for fd in (requests.detach(), ended, wake, *clients.values()):
                    os.close(fd)
                _become(json.loads(request), fds)
            clients[pid] = fds[3]
            os.write(fds[3], pid.to_bytes(4, "little"))
            for fd in fds[:3]:
                os.close(fd)


def _num_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _report_ended(clients: dict[int, int]) -> None:
    while clients:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
            os.write(clients[pid], status.to_bytes(4, "little"))
        os.close(clients.pop(pid))


def _become(request: dict[str, Any], fds: list[int]) -> NoReturn:
    """Run the program of a request in this process, and end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, fd in enumerate(fds[:3]):
        os.dup2(fd, target)
    for fd in fds:
        os.close(fd)
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    process.ORIGINAL_DIR = request["cwd"]  # where multiprocessing's further processes look for modules
    os.environ.clear()
    os.environ.update(request["env"])
    sys.stdout.reconfigure(write_through="PYTHONUNBUFFERED" in os.environ)  # type: ignore[union-attr]
    _, program, *args = request["args"]
    sys.argv, sys.path[0], tempfile.tempdir = ["-c", *args], "", None
    util.spawnv_passfds = _fork_server_of_this_process(util.spawnv_passfds)
    subprocess._fork_exec = _fork_python(subprocess._fork_exec)  # type: ignore[attr-defined]
    main = sys.modules["__main__"] = ModuleType("__main__")
    code = 1
    try:
        exec(compile(program, "<string>", "exec"), vars(main))
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):  # as Python does
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _fork_server_of_this_process(spawn: Callable[..., int]) -> Callable[..., int]:
    """Let multiprocessing fork its fork server from this process, which has its imports, as long as that is safe."""

    def fork(path: bytes, args: Sequence[str], fds: Sequence[int]) -> int:
        if "forkserver" not in args[-1] or _num_threads() > 1:
            return spawn(path, args, fds)
        return os.fork() or _run_and_exit(args[-1], fds)

    return fork


def _fork_python(spawn: Callable[..., int]) -> Callable[..., int]:
    """Let `subprocess` fork `python -P -c PROGRAM ...`, such as the writer of a run, as long as that is safe."""

    def fork(args: Sequence[str], *options: Any) -> int:
        cwd, env, streams, new_session = options[3], options[4], (options[5], options[8], options[10]), options[14]
        if list(args[:3]) != [sys.executable, "-P", "-c"] or cwd or env or new_session or _num_threads() > 1:
            return spawn(args, *options)
        pid = os.fork()
        if not pid:
            for target, fd in enumerate(streams):
                if fd != -1:
                    os.dup2(fd, target)
            sys.argv = ["-c", *args[4:]]
            _run_and_exit(args[3])
        return pid

    return fork


def _run_and_exit(program: str, fds: Sequence[int] = ()) -> NoReturn:
    """Run a program in a process that was just forked, with the standard streams and these file descriptors only."""
    for fd in {int(path.name) for path in Path("/proc/self/fd").iterdir()} - {0, 1, 2, *fds}:
        with contextlib.suppress(OSError):  # the one that listed them
            os.close(fd)
    try:
        exec(program, {"__name__": "__main__"})
    finally:
        os._exit(1)


if __name__ == "__main__":
    serve()
