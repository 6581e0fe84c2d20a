"""`litlab compare A B --examples`: print which test examples one run classifies correctly and the other does not."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.comparison.examples import (
    FORMATS,
    ExampleComparison,
    compare_examples,
    conclusion,
    contingency_table,
    legend,
    records,
)
from pipelines.runtime.console import numeric_table, table_console
from pipelines.runtime.errors import UserError
from pipelines.runtime.outputs import check_output
from pipelines.runtime.text import escape_control_characters

MAX_SHOWN = 10  # examples of each kind on a terminal


def print_examples(names: Sequence[str], output: str, folder: Path | None, tracking_uri: str | None) -> int:
    """Compare two runs, print the result, and draw the images if a folder is given; return the exit code.

    Raises:
        UserError: There are not two runs, they cannot be compared, or the images cannot be drawn.
    """
    if len(names) != 2:
        raise UserError(f"--examples compares two runs: litlab compare RUN_A RUN_B --examples; got {len(names)}")
    compared = compare_examples(*names, tracking_uri=tracking_uri)
    if output == "table":
        _print(compared)
    else:
        print(FORMATS[output](compared), end="")
    if folder:
        from pipelines.comparison.example_images import example_figures
        from pipelines.comparison.figures import MARKS, figure_paths, save_figures

        figures = example_figures(compared)
        for path in figure_paths(figures, folder):
            check_output(path, *MARKS, option="--plot")
        save_figures(figures, folder)
        if output == "table":
            print(f"figures  {folder}: {', '.join(figures) or 'none, as no example differs'}")
    return 0


def _print(compared: ExampleComparison) -> None:
    console = table_console()
    for line in legend(compared):
        print(escape_control_characters(line))
    console.print(numeric_table("", contingency_table(compared)))
    print(conclusion(compared))
    for letter in "AB":
        found = [record for record in records(compared) if record["right"] == letter]
        if not found:
            continue
        other = "ba"["AB".index(letter)]
        lines = [["example", "true class", f"{other.upper()} says", "probability"]]
        for record in found[:MAX_SHOWN]:
            probability = record[f"{other}_probability"]
            shown = "" if probability is None else f"{probability:.2f}"
            lines.append([str(record["index"]), record["target"], record[other], shown])
        more = f" (first {MAX_SHOWN}; --format csv has all)" if len(found) > MAX_SHOWN else ""
        print(f"\nonly {letter} right: {len(found):,}{more}")
        console.print(numeric_table("", lines))
