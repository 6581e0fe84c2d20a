"""`litlab show`: show one run on one screen."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import RUN_ID, VerbParser

if TYPE_CHECKING:
    from pipelines.tracking.store import StoredRun

DESCRIPTION = "Show one run of any status: model, data, origin, status and metrics."
NOT_SET = ("false", "null", "False", "None")


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION, needs_arguments=True)
    parser.add_argument("run_id", **RUN_ID)
    parser.add_argument("--format", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json")
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the facts about a run."""
    options = make_parser(verb).parse(argv)
    from pipelines.comparison.run_diff import shown_metrics
    from pipelines.tracking.existing import existing_store
    from pipelines.tracking.run_names import find_run

    run = find_run(existing_store(options.tracking_uri), options.run_id)
    if options.format == "json":
        print(json.dumps({**_facts(run), "metrics": shown_metrics(run), "params": run.params}, indent=2))
    else:
        print_run(run)
    return 0


def print_run(run: "StoredRun") -> None:
    """Print the facts about a run, its configuration and its metrics."""
    from pipelines.comparison.run_diff import shown_metrics
    from pipelines.runtime.console import print_facts

    params = _configuration(run.params)
    facts = {name: value for name, value in _facts(run).items() if name not in params}
    metrics = {key: f"{value:.6g}" for key, value in shown_metrics(run).items()}
    width = max(map(len, [*facts, *params, *metrics]))
    print_facts(facts, width)
    print_facts(params, width, wrap=True)
    print_facts(metrics, width)


def _configuration(params: Mapping[str, str]) -> dict[str, str]:
    """Return the params of each section: "model": "modules.mlp.MLP, hidden=[8], dropout=0.2"; without false and null.

    Params that belong to no section, as those of other programs, are in "params".
    """
    from pipelines.tracking.tags import SEED_PARAMS

    sections: dict[str, list[str]] = {name: [] for name in ("model", "data", "trainer", "params")}
    for key, value in params.items():
        section, _, name = key.partition(".")
        if section not in sections:
            section, name = "params", key
        if key not in SEED_PARAMS and value not in NOT_SET:
            sections[section].append(f"{name}={value}" if name else value)
    return {section: ", ".join(values) for section, values in sections.items() if values}


def _facts(run: "StoredRun") -> Mapping[str, str]:
    from pipelines.runtime.console import format_age, format_duration
    from pipelines.tracking import tags
    from pipelines.tracking.source_code import FOLDER

    of_run, params = run.tags, run.params
    seconds = None if run.ended is None else (run.ended - run.started) / 1000
    note, digests = of_run.get(tags.NOTE_TAG, "").strip(), sorted(run.data_digests.items())
    facts = {
        "run": run.run_id,
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status.lower(),
        "reason": of_run.get(tags.REASON_TAG, ""),
        "note": note.splitlines()[0] if note else "",
        "started": format_age(run.started),
        "took": "" if seconds is None else format_duration(seconds),
        "user": f"{of_run.get(tags.USER_TAG, '')} on {of_run.get(tags.HOST_TAG, 'an unknown machine')}",
        "command": of_run.get(tags.COMMAND_TAG, ""),
        "commit": _commit(of_run, tags.COMMIT_TAG, tags.DIRTY_TAG),
        "of litlab": _commit(of_run, tags.LITLAB_COMMIT_TAG, tags.LITLAB_DIRTY_TAG),
        "folder": _commit(of_run, tags.FOLDER_COMMIT_TAG, tags.FOLDER_DIRTY_TAG),
        "code": ", ".join(run.names(FOLDER)),
        "model": params.get("model", ""),
        "data": params.get("data", ""),
        "data folder": _data_folder(run),
        "data sha256": ", ".join(f"{name.rpartition('.')[2]} {digest[:10]}" for name, digest in digests),
        "seed": "" if run.seed == run.run_id else run.seed,  # a summary has none
        "selected by": _selection(run),
        "part of": of_run.get(tags.PARENT_RUN_TAG, ""),
        "from": of_run.get(tags.FROM_TAG, ""),
        "continues": of_run.get(tags.CONTINUES_TAG, ""),
        "files": str(run.folder or run.artifact_uri),
    }
    return {name: value for name, value in facts.items() if value}


def _data_folder(run: "StoredRun") -> str:
    """Return where the data were, if the run's files are on this machine."""
    from pipelines.comparison.run_diff import configuration_of

    configuration = (configuration_of(run) if run.folder else None) or {}
    folder = configuration.get("data.data_dir", "")
    return "" if folder in NOT_SET else folder


def _selection(run: "StoredRun") -> str:
    """Return the metric that selected the weights: "highest val/acc", or "val/acc" if the run tells no direction."""
    from pipelines.tracking.measured import selected_metric
    from pipelines.tracking.tags import MODE_TAG, SELECTED

    metric = (selected_metric(run.metrics, run.tags) or "").removeprefix(f"{SELECTED}/")
    best = {"min": "lowest ", "max": "highest "}.get(run.tags.get(MODE_TAG, ""), "")
    return metric and f"{best}{metric}"


def _commit(of_run: Mapping[str, str], commit_tag: str, dirty_tag: str) -> str:
    commit = of_run.get(commit_tag, "")[:12]
    return f"{commit}, with uncommitted changes" if commit and of_run.get(dirty_tag) == "true" else commit
