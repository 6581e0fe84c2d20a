"""MLflow's server with one more page, which opens the runs of an experiment with litlab's view; see `ui.py`.

The page sets what MLflow's own pages keep in the browser: so the view stays after a reload. A view that a person has
changed is not replaced. `mlflow server --app-name litlab` imports this module, by the entry point in pyproject.toml.
"""

import json
import os

from fastapi.responses import HTMLResponse
from mlflow.server.fastapi_app import app
from starlette.requests import Request
from starlette.routing import Route

from pipelines.tracking.mlflow_internals import UI_NO_TELEMETRY, UI_SETTINGS, UI_STATE_KEY
from pipelines.tracking.ui_view import PAGE, VIEW_VARIABLE
from pipelines.tracking.uri import runs_page

SCRIPT = """<!doctype html><title>litlab</title><script>
const [key, state, settings, defaults, target] = %s, mark = "litlab." + key, shown = localStorage.getItem(key);
const isChanged = (old, set) => Object.keys(set).some(name => JSON.stringify(old[name]) !== JSON.stringify(set[name]));
if (!shown || !isChanged(JSON.parse(shown), JSON.parse(localStorage.getItem(mark) || '{"": 0}'))) {
  localStorage.setItem(key, JSON.stringify({...JSON.parse(shown || "{}"), ...state}));
  localStorage.setItem(mark, JSON.stringify(state));
}
for (const name in settings) localStorage.setItem(name, JSON.stringify(settings[name]));
for (const name in defaults) localStorage.getItem(name) ?? localStorage.setItem(name, JSON.stringify(defaults[name]));
location.replace(target);
</script>"""


def open_view(request: Request) -> HTMLResponse:
    """Return the page that sets the view and goes to the runs."""
    view = json.loads(os.environ[VIEW_VARIABLE])
    is_disabled = os.environ.get("MLFLOW_DISABLE_TELEMETRY", "").lower() in ("true", "1")
    target = runs_page(view["experiment"])
    key, defaults = UI_STATE_KEY.format(experiment=view["experiment"]), UI_NO_TELEMETRY if is_disabled else {}
    content = [key, view["state"], UI_SETTINGS, defaults, target]
    return HTMLResponse(SCRIPT % json.dumps(content).replace("<", "\\u003c"))


app.router.routes.insert(0, Route(PAGE, open_view))
