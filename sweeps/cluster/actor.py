"""The class of an agent's actor, as it is sent to nodes."""

from typing import Any


def actor_class() -> type:
    """Return the class of the actor.

    A class within a function is sent by value. So the node imports litlab first: a project may have packages of the
    names of litlab's.
    """

    class LitlabAgent:
        """Enters the project's folder and has an `Agent` carry out the calls.

        Args:
            top: The project's folder. If the node has none of this path, its source files are unpacked.
            current: The folder within it in which trainings run.
            code: The source files as a zip file.
            settings: Arguments of `Agent`.
        """

        def __init__(self, top: str, current: str, code: bytes, settings: dict[str, Any]) -> None:
            import importlib
            import io
            import os
            import sys
            import tempfile
            import zipfile
            from pathlib import Path

            folder, unpacked = Path(top, current), None
            rays_own = ("/ray/thirdparty_files", "/ray/_private/workers")
            others = [path for path in sys.path if not path.endswith(rays_own) and path not in ("", str(folder))]
            sys.path[:] = [*others, str(folder)]  # the last one, as in every process; litlab's clone is a project, too
            if not folder.is_dir():
                unpacked = tempfile.mkdtemp(prefix="litlab-code-")
                zipfile.ZipFile(io.BytesIO(code)).extractall(unpacked)
                folder = Path(unpacked, current)
                folder.mkdir(parents=True, exist_ok=True)
            os.chdir(folder)
            importlib.import_module("litlab")
            from sweeps.cluster.agent import Agent

            self._agent = Agent(**settings, code=unpacked)

        def call(self, method: str, *arguments: Any) -> Any:
            return getattr(self._agent, method)(*arguments)

    return LitlabAgent
