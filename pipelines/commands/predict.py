"""`litlab predict`: classify image files."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.commands.options import RUN_ID, VerbParser
from pipelines.runtime.errors import UserError

DESCRIPTION = """Classify image files with a run's selected checkpoint, and print file, class
and probability as CSV. Images of any size and format are converted to grey or
RGB and resized to the input size of the network."""


def make_parser(verb: str) -> VerbParser:
    usage = "RUN_ID IMAGE [IMAGE ...] [--out FILE] [--KEY VALUE ...]"
    parser = VerbParser(verb, DESCRIPTION, usage=usage, needs_arguments=True)
    parser.show_argument("run_id", **RUN_ID)
    parser.show_argument("images", metavar="IMAGE", nargs="+", help="an image file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the CSV to a file instead of printing it")
    invert = "for images that are dark on light, if the network was trained on light on dark, such as MNIST"
    parser.add_argument("--invert", action="store_true", help=invert)
    parser.show_keys("override a key of the run's configuration, such as --trainer.accelerator cpu")
    parser.add_trust()
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Classify images, and print or write the table."""
    options, positionals, overrides = make_parser(verb).parse_with_overrides(argv)
    if len(positionals) < 2:
        raise UserError("name a run and at least one image: litlab predict RUN_ID IMAGE [IMAGE ...]")
    run_id, *names = positionals
    images = [Path(name) for name in names]
    if missing := [image for image in images if not image.is_file()]:
        raise UserError(f"{missing[0]}: no such file")
    from pipelines.evaluation.predict import predict

    where = {"tracking_uri": options.tracking_uri, "trust": options.trust}
    found = predict(run_id, images, overrides, invert=options.invert, **where)
    rows = [(str(item.file), item.class_name, f"{item.probability:.6f}") for item in found]
    _write([("file", "class", "probability"), *rows], options.out)
    return 0


def _write(table: Sequence[Sequence[str]], out: Path | None) -> None:
    """Write a header and its rows as CSV, to the screen without a file."""
    if out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(table)
        return
    try:
        with out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error
    print(f"{len(table) - 1} predictions in {out}")
