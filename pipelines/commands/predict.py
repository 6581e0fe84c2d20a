"""`litlab predict`: predict a run's own data, or classify image files."""

import csv
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.commands.options import RUN_ID, VerbParser, find_run_id
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.outputs import check_output
from pipelines.runtime.status import show_status

DESCRIPTION = """Predict with a run's selected checkpoint, and print a table as CSV. Without
images: predict_step on the predict_dataloader, or else on the test set. With
images, of any size and format: file, class and probability. Modules of litlab
get them in the network's size, others after the transform of their data set."""

SCREEN_COLUMNS = 16  # a terminal shows a summary of wider tables
SCREEN_NUMBERS = 3  # outputs for the classes of an example on a terminal
IMAGE_COLUMNS = ("file", "class", "probability")


def make_parser(verb: str) -> VerbParser:
    usage = "RUN_ID [IMAGE ...] [--out FILE] [--KEY VALUE ...]"
    parser = VerbParser(verb, DESCRIPTION, usage=usage, needs_arguments=True)
    parser.show_argument("run_id", **RUN_ID)
    parser.show_argument("images", metavar="IMAGE", nargs="*", help="an image file, or a folder: all images in it")
    out = "write to a new file, or replace such a table; FILE.pt keeps what predict_step returns"
    parser.add_argument("--out", type=Path, metavar="FILE", help=out)
    invert = "for images that are dark on light, if the network has learnt light on dark, such as MNIST"
    parser.add_argument("--invert", action="store_true", help=invert)
    part = "part of a batch that is the input, an index or a key of a dict (the first)"
    parser.add_argument("--input", metavar="KEY", help=part)
    forward = "method that maps inputs to outputs, without predict_step and for images (%(default)s)"
    parser.add_argument("--forward", metavar="NAME", default="forward", help=forward)
    parser.show_keys("override a key of the run's configuration, such as --data.data_dir FOLDER")
    parser.add_trust()
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Predict, and print or write the table."""
    parser = make_parser(verb)
    options, positionals, overrides = parser.parse_with_overrides(argv)
    if not positionals:
        raise UserError("name a run: litlab predict RUN_ID [IMAGE ...]")
    read_request(verb, overrides, on_run=True, options=parser.option_names)
    run_id, *names = positionals
    images = [Path(name) for name in names]
    if missing := [image for image in images if not image.exists()]:
        raise UserError(f"{missing[0]}: no such file")
    if options.out is not None:  # before the prediction, as far as its columns are known
        marks = [_header(IMAGE_COLUMNS)] if images else [] if options.out.suffix == ".pt" else [b"index,", b"loader,"]
        check_output(options.out, *marks, inputs=images)
    if options.invert and not images:
        raise UserError("--invert is for images: name an image file, litlab predict RUN_ID IMAGE --invert")
    show_status(f"{run_id}: loading torch, the run and its data")
    run_id = find_run_id(run_id, options.tracking_uri)
    given = {
        "input_key": options.input,
        "forward": options.forward,
        "tracking_uri": options.tracking_uri,
        "trust": options.trust,
    }
    if not images:
        return _predict_data(run_id, overrides, options.out, given)
    from pipelines.evaluation.predict import predict

    found = predict(run_id, images, overrides, invert=options.invert, **given)
    rows = [(str(item.file), item.class_name, f"{item.probability:.6f}") for item in found]
    _write([IMAGE_COLUMNS, *rows], options.out)
    return 0


def _predict_data(run_id: str, overrides: Sequence[str], out: Path | None, given: dict[str, Any]) -> int:
    from pipelines.evaluation.predict_data import predict_data

    predictions = predict_data(run_id, overrides, **given)
    for remark in predictions.remarks:
        logger.info("%s", remark)
    if out is not None and out.suffix == ".pt":
        import torch

        _save(lambda: torch.save(predictions.values, out), out)
        print(f"predictions in {out}")
        return 0
    on_terminal = out is None and sys.stdout.isatty()
    columns = predictions.short_table(SCREEN_NUMBERS) if on_terminal else predictions.table()
    if "highest_1" in columns:
        logger.info("the highest %d outputs are shown; --out FILE.csv writes all of them", SCREEN_NUMBERS)
    rows = list(zip(*columns.values(), strict=True))
    width = len(columns.keys() - {"loader", "index", "target"})
    if out is None and width > SCREEN_COLUMNS:
        logger.warning("%d numbers for each of %d examples: --out FILE.pt keeps their shape", width, len(rows))
        if on_terminal:
            _print_summary(predictions.summary())
            return 0
    if "target" in columns and "class" in columns:
        pairs = zip(columns["target"], columns["class"], strict=True)
        correct = sum(target == predicted for target, predicted in pairs)
        logger.info("%d of %d examples are classified correctly", correct, len(rows))
    table = [tuple(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row) for row in rows]
    _write([tuple(columns), *table], out)
    return 0


def _print_summary(lines: Sequence[Sequence[str]]) -> None:
    from pipelines.runtime.console import Console, numeric_table

    Console(soft_wrap=True).print(numeric_table("", lines))
    print("--out FILE.csv writes all numbers as a table")


def _write(table: Sequence[Sequence[object]], out: Path | None) -> None:
    """Write a header and its rows as CSV, to the screen without a file."""
    if out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(table)
        return
    check_output(out, _header(table[0]))

    def write() -> None:
        with out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(table)

    _save(write, out)
    print(f"{len(table) - 1} predictions in {out}")


def _header(columns: Sequence[object]) -> bytes:
    """Return the first line of a table, which marks a file that litlab has written."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(columns)
    return line.getvalue().encode()


def _save(write: Callable[[], None], out: Path) -> None:
    try:
        write()
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError if there is no such folder
        raise UserError(f"{out}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
