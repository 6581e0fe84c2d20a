"""`litlab ui`: open the MLflow UI on this project's runs."""

from collections.abc import Sequence

from pipelines.commands.options import VerbParser
from pipelines.runtime.log import logger
from pipelines.runtime.signals import exit_on_sigterm
from pipelines.runtime.text import redact_credentials

HELP = """usage: litlab ui [--port N] [--host HOST] [--tracking_uri URI]

Open the MLflow UI on this project's runs. Press Ctrl-C to stop it.

  --port N            default: the first free port from 5000 on
  --host HOST         the address to listen on (default: 127.0.0.1, this machine
                        only). With any other address, everyone who can reach it
                        can read, change and delete all runs: docs/SECURITY.md
  --tracking_uri URI  where runs are stored (default: mlflow.db of this project)"""
PUBLIC_WARNING = """--host {host}: anyone who can reach port {port} of this machine can read, change and
delete all runs, without a password and unencrypted. To require a password, stop this and start:
  pip install 'mlflow[auth]'
  export MLFLOW_FLASK_SERVER_SECRET_KEY=... MLFLOW_AUTH_ADMIN_PASSWORD=...
  mlflow server --app-name basic-auth --backend-store-uri {uri} --host {host} --port {port}
See docs/SECURITY.md"""


def main(verb: str, argv: Sequence[str]) -> int:
    """Parse `litlab ui`, and serve the UI until Ctrl-C; the server's exit code if it ends by itself."""
    parser = VerbParser(verb, HELP)
    parser.add_argument("--port", type=int)
    parser.add_argument("--host")
    options = parser.parse(argv)
    from pipelines.tracking.ui import HOST, serve_ui

    host = options.host or HOST
    exit_on_sigterm()
    try:
        with serve_ui(port=options.port, host=host, tracking_uri=options.tracking_uri) as server:
            uri = redact_credentials(server.tracking_uri)
            if server.is_public:
                for line in PUBLIC_WARNING.format(host=host, port=server.port, uri=uri).splitlines():
                    logger.warning(line)
            print(f"MLflow UI of {uri}:", flush=True)
            print(f"{server.url} (ready in a few seconds; press Ctrl-C to stop)", flush=True)
            return server.process.wait()
    except KeyboardInterrupt:
        return 0
