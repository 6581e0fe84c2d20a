"""`litlab ui`: open the MLflow UI on this project's runs."""

from collections.abc import Sequence

from pipelines.commands.options import VerbParser
from pipelines.runtime.log import logger
from pipelines.runtime.signals import exit_on_sigterm
from pipelines.runtime.text import redact_credentials

DESCRIPTION = """Open the MLflow UI on this project's runs: on those of an experiment or a study
if one is named. Press Ctrl-C to stop it. For runs on a server, which has a UI
of its own, the address of that page is printed."""
PUBLIC_WARNING = """--host {host}: anyone who can reach port {port} of this machine can read, change and
delete all runs, without a password and unencrypted. To require a password, stop this and start:
  pip install 'mlflow[auth]'
  export MLFLOW_FLASK_SERVER_SECRET_KEY=... MLFLOW_AUTH_ADMIN_PASSWORD=...
  mlflow server --app-name basic-auth --backend-store-uri {uri} --host {host} --port {port}
See docs/SECURITY.md"""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION)
    parser.add_argument("name", nargs="?", metavar="NAME", help="an experiment or a study (that of the latest run)")
    parser.add_argument("--port", type=int, metavar="N", help="default: the first free port from 5000 on")
    host = """the address to listen on (default: 127.0.0.1, this machine only). With any other address, everyone who can
    reach it can read, change and delete all runs: docs/SECURITY.md"""
    parser.add_argument("--host", default="127.0.0.1", help=host)
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Serve the UI until Ctrl-C; return the server's exit code if it ends by itself."""
    options = make_parser(verb).parse(argv)
    from pipelines.tracking.store import Store
    from pipelines.tracking.ui import serve_ui
    from pipelines.tracking.ui_view import save_view
    from pipelines.tracking.uri import store_uri

    uri = store_uri(options.tracking_uri)
    if options.name and uri.startswith("http"):
        print(f"{redact_credentials(uri)}{save_view(Store(uri), options.name).path}")
        return 0
    exit_on_sigterm()
    try:
        with serve_ui(**vars(options)) as server:
            uri = redact_credentials(server.tracking_uri)
            if server.is_public:
                for line in PUBLIC_WARNING.format(host=options.host, port=server.port, uri=uri).splitlines():
                    logger.warning(line)
            if server.note:
                logger.warning(server.note)
            print(f"MLflow UI of {uri}:", flush=True)
            print(f"{server.url}{server.page}", flush=True)
            print("Ready in a few seconds. Press Ctrl-C to stop.", flush=True)
            return server.process.wait()
    except KeyboardInterrupt:
        return 0
