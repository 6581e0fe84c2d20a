"""Use the model of a run: `test`, `validate` and `predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from litlab.arguments import Overrides, key_arguments
from litlab.call import training_call
from litlab.run import Run, objects_of, run_id_of, uri_of
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.evaluation.evaluate import RunEvaluation


def test(
    run: str | Run, *, overrides: Overrides | None = None, tracking_uri: str | None = None, trust: bool = False
) -> "RunEvaluation":
    """Measure the selected weights of a run on its test set again. Nothing recorded is changed.

    Args:
        run: The run, or what names it.
        overrides: Other values for keys of its configuration, such as {"data.data_dir": "data"}.
        tracking_uri: Where it is; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.
        trust: Whether to restore objects in the checkpoint, which may run code.

    Returns:
        Metrics as `recorded` and as `measured` now, and whether the data are the `same_data`.

    Raises:
        UserError: There is no such run, or its checkpoint or its data are missing.
    """
    return _measure(run, "test", overrides, tracking_uri, trust=trust)


def validate(
    run: str | Run, *, overrides: Overrides | None = None, tracking_uri: str | None = None, trust: bool = False
) -> "RunEvaluation":
    """Measure the selected weights of a run on its validation set again; see `test`."""
    return _measure(run, "val", overrides, tracking_uri, trust=trust)


def _measure(
    run: str | Run,
    split: Literal["val", "test"],
    overrides: Overrides | None,
    tracking_uri: str | None,
    *,
    trust: bool,
) -> "RunEvaluation":
    arguments, uri = key_arguments(overrides), uri_of(run, tracking_uri)
    read_request("test", arguments, on_run=True)
    run_id = run_id_of(run, uri)
    with training_call():
        from pipelines.evaluation.evaluate import evaluate_run

        return evaluate_run(run_id, split, arguments, tracking_uri=uri, trust=trust, objects=objects_of(run))


def predict(
    run: str | Run,
    images: str | Path | Sequence[str | Path] = (),
    *,
    overrides: Overrides | None = None,
    invert: bool = False,
    input_key: str | None = None,
    forward: str = "forward",
    tracking_uri: str | None = None,
    trust: bool = False,
) -> "pd.DataFrame":
    """Predict a run's own data, or classify image files, with its selected weights.

    Args:
        run: The run, or what names it.
        images: Image files of any size and format, or folders with them; none for the run's own `predict_dataloader`,
            or else its test set.
        overrides: Other values for keys of its configuration.
        invert: Whether to invert the images: for dark on light, where the network has learnt light on dark.
        input_key: The part of a batch that is the input, an index or a key of a dict; default: the first.
        forward: Method that maps inputs to outputs, for images and where the module has no `predict_step`.
        tracking_uri: Where it is; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.
        trust: Whether to restore objects in the checkpoint, which may run code.

    Returns:
        A row for each example; of images with the columns `file`, `class` and `probability`. `attrs["notes"]` says
        which data and method were used, where these are not the module's own.

    Raises:
        UserError: There is no such run or file, or the module does not classify images.
    """
    import pandas as pd

    arguments, uri = key_arguments(overrides), uri_of(run, tracking_uri)
    read_request("predict", arguments, on_run=True)
    files = [Path(image) for image in ([images] if isinstance(images, str | Path) else images)]
    if missing := [file for file in files if not file.exists()]:
        raise UserError(f"{missing[0]}: no such file")
    run_id = run_id_of(run, uri)
    options: dict[str, Any] = {"input_key": input_key, "forward": forward, "tracking_uri": uri, "trust": trust}
    options["objects"] = objects_of(run)
    with training_call():
        if files:
            from pipelines.evaluation.predict import predict as classify

            found = classify(run_id, files, arguments, invert=invert, **options)
            rows = [(str(item.file), item.class_name, item.probability) for item in found]
            return pd.DataFrame(rows, columns=["file", "class", "probability"])
        from pipelines.evaluation.predict_data import predict_data

        predictions = predict_data(run_id, arguments, **options)
    frame = pd.DataFrame(predictions.table()).set_index("index")
    frame.attrs["notes"] = predictions.remarks
    return frame
