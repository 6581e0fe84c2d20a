"""Read tables from CSV and Parquet files, and check their columns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.paths import no_such

SUFFIXES = (".csv", ".tsv", ".parquet")
MIN_NUMBERS = 0.5  # of the values of a column that is taken for one of numbers


def read_table(path: Path) -> Any:
    """Read a table, a pandas DataFrame, from a file. Texts stay texts, such as the label 01.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a table, is empty, or has another suffix than .csv, .tsv or .parquet.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(no_such(path))
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: the suffix must be one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path, engine="pyarrow")
        else:
            separator = "," if path.suffix.lower() == ".csv" else "\t"
            table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:  # pandas's and pyarrow's errors are ValueErrors
        raise ValueError(f"{path}: not readable as a table ({str(error).strip().splitlines()[0]})") from error
    if not len(table):
        raise ValueError(f"{path}: the table has no rows")
    return table


def require_columns(path: Path, table: Any, **columns: str) -> None:
    """Require columns, given by the key that names them.

    Raises:
        ValueError: The table lacks one. The message names the key and the columns that there are.
    """
    for key, column in columns.items():
        if column not in table.columns:
            raise ValueError(f"{path}: has no column {column!r} (data.{key}); it has {', '.join(map(str, table))}")


def texts(path: Path, table: Any, column: str) -> list[str]:
    """Return a column as texts.

    Raises:
        ValueError: A value is missing. The message names the file, the column and the row.
    """
    missing = table[column].isna() | (table[column].astype(str).str.strip() == "")
    if missing.any():
        raise ValueError(f"{path}: column {column!r} has no value in {_row(path, missing)}")
    return [str(value).strip() for value in table[column]]


def numbers(path: Path, table: Any, columns: Sequence[str]) -> NDArray[np.float64]:
    """Return columns as numbers, shape (rows, columns).

    Raises:
        ValueError: A value is missing, or is no finite number. The message names the file, the column and the row.
    """
    import pandas as pd

    parts = []
    for column in columns:
        values = pd.to_numeric(table[column], errors="coerce").astype("float64")
        wrong = ~np.isfinite(values)
        if wrong.any():
            value = table[column][wrong].iloc[0]
            raise ValueError(f"{path}: column {column!r} has {value!r} in {_row(path, wrong)}, which is no number")
        parts.append(values.to_numpy())
    return np.stack(parts, axis=1)


def numeric_columns(path: Path, table: Any) -> list[str]:
    """Return the names of the columns of numbers. Columns in which fewer than half of the values are, are no numbers.

    Raises:
        ValueError: A column has numbers, but also other or missing values. The message names the first one.
    """
    import pandas as pd

    parts = {str(name): pd.to_numeric(table[name], errors="coerce").notna().mean() for name in table.columns}
    found = [name for name, part in parts.items() if part >= MIN_NUMBERS]
    for name in found:
        try:
            numbers(path, table, [name])
        except ValueError as error:
            raise ValueError(f"{error}; data.features names the columns to use") from error
    return found


def require_other_groups(
    column: str, path: Path, groups: Sequence[str], test_path: Path, tested: Sequence[str]
) -> None:
    """Require that no group of a table is in its test table.

    Raises:
        ValueError: One is in both. The message names it and the files.
    """
    if both := sorted({*groups} & {*tested}):
        raise ValueError(
            f"{test_path}: {both[0]} of column {column!r} is in {path} too; no group may be in training and test set"
        )


def group_numbers(values: Sequence[str]) -> Tensor:
    """Return the number of each value's group: equal values have equal numbers."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return torch.tensor([numbers[value] for value in values])


def _row(path: Path, wrong: Any) -> str:
    """Name the first row of a mask: the line of a text file, counted with its header."""
    index = int(np.flatnonzero(wrong.to_numpy())[0])
    return f"row {index + 1}" if path.suffix.lower() == ".parquet" else f"line {index + 2}"
