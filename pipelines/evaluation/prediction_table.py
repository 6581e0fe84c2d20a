"""What a module predicts for its data, as a table with a row for each example.

Shapes: N examples.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipelines.runtime.errors import UserError

Column = Sequence[Any]
MAX_COLUMNS = 256
_STATISTICS = (torch.min, torch.mean, torch.max)


@dataclass(frozen=True)
class Predictions:
    """What a module predicts for its data.

    Attributes:
        values: What `predict_step` returned, the batches joined: a tensor, list, or a dictionary of these.
        classes: Names of the classes; empty if unknown.
        remarks: Which data and which method were used, where these are not the module's own for prediction.
        loaders: The part of the values that is of each data loader, by its name or index; empty if there is one.
        targets: The true value of each example of the test or validation set, where there is one number; by the name of
            the data loader, "" if there is one.
    """

    values: Any
    classes: tuple[str, ...]
    remarks: list[str]
    loaders: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)

    def table(self) -> dict[str, Column]:
        """Return one column for each number or text that there is for an example, in the order of the data.

        Of class probabilities, these are the most probable class and its probability; of other outputs for the classes
        of known targets, the class is added. The first column is the index of the example; if there are several data
        loaders, that of the loader comes before it, and each has its own index.

        Raises:
            UserError: There is not one row for each example, or the rows are too long for a table.
        """
        if not self.loaders:
            columns = self._columns_of(self.values, self.targets.get(""))
            return {"index": range(_rows(columns)), **columns}
        parts = {name: self._columns_of(values, self.targets.get(name)) for name, values in self.loaders.items()}
        first, *others = parts.values()
        if any(columns.keys() != first.keys() for columns in others):
            raise self._no_table()
        return {
            "loader": [name for name, columns in parts.items() for _ in range(_rows(columns))],
            "index": [index for columns in parts.values() for index in range(_rows(columns))],
            **{name: [cell for columns in parts.values() for cell in columns[name]] for name in first},
        }

    def short_table(self, count: int) -> dict[str, Column]:
        """Return the table for a screen: of the outputs for known classes, the highest ones, each with its class.

        Args:
            count: How many outputs; if there are no more, it is the whole table.
        """
        columns = self.table()
        outputs = [name for name in columns if re.fullmatch(r"prediction_\d+", name)]
        if "class" not in columns or len(outputs) <= count:
            return columns
        names = self._class_names(len(outputs))
        highest, classes = torch.tensor([columns[name] for name in outputs]).T.topk(count)
        rows = zip(classes.tolist(), highest.tolist(), strict=True)
        cells = [[f"{names[index]}: {value:.4g}" for index, value in zip(*row, strict=True)] for row in rows]
        kept = {name: column for name, column in columns.items() if name not in outputs}
        return {**kept, **{f"highest_{rank}": [row[rank - 1] for row in cells] for rank in range(1, count + 1)}}

    def _columns_of(self, values: Any, targets_N: Tensor | None) -> dict[str, Column]:
        columns = self._predicted_columns(values)
        if targets_N is None or len(targets_N) != _rows(columns):
            return columns
        if not _are_classes(targets_N, values):
            return {"target": targets_N.tolist(), **columns}
        names = self._class_names(values.shape[1])
        predicted = [names[index] for index in values.argmax(1).tolist()]
        return {"target": [names[index] for index in targets_N.tolist()], "class": predicted, **columns}

    def _class_names(self, count: int) -> Sequence[str | int]:
        return self.classes if len(self.classes) == count else range(count)

    def _predicted_columns(self, values: Any) -> dict[str, Column]:
        if _are_probabilities(self.values):
            probability_N, class_N = values.max(1)
            names = self._class_names(values.shape[1])
            return {"class": [names[index] for index in class_N.tolist()], "probability": probability_N.tolist()}
        columns: dict[str, Column] = {}
        for name, value in _named(values):
            columns |= _columns(name, value)
        lengths = set(map(len, columns.values()))
        if not columns or len(lengths) > 1 or len(columns) > MAX_COLUMNS:
            raise self._no_table()
        return columns

    def _no_table(self) -> UserError:
        parts = ", ".join(f"{name} {_describe(value)}" for name, value in _named(self.values)) or "nothing"
        return UserError(f"predict_step returns no table ({parts}): --out FILE.pt saves it as it is")

    def summary(self) -> list[list[str]]:
        """Return a header and, for each tensor, its shape per example and its lowest, mean and highest value."""
        tensors = {name: value for name, value in _named(self.values) if isinstance(value, Tensor) and value.ndim}
        rows = [
            [name, "x".join(map(str, value.shape[1:])) or "1", *(f"{of(value.double()):.4g}" for of in _STATISTICS)]
            for name, value in tensors.items()
        ]
        return [["", "per example", "lowest", "mean", "highest"], *rows]


def _rows(columns: Mapping[str, Column]) -> int:
    return len(next(iter(columns.values())))


def _are_probabilities(values: Any) -> bool:
    if not isinstance(values, Tensor) or values.ndim != 2 or values.shape[1] < 2 or not values.is_floating_point():
        return False
    return bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < 1e-2).all())


def _are_classes(targets_N: Tensor, values: Any) -> bool:
    """Return whether the targets are indices of the columns of the values: of logits, or of probabilities."""
    if targets_N.is_floating_point() or not isinstance(values, Tensor) or values.ndim != 2 or values.shape[1] < 2:
        return False
    return int(targets_N.min()) >= 0 and int(targets_N.max()) < values.shape[1]


def _named(values: Any, name: str = "prediction") -> list[tuple[str, Any]]:
    """Return the parts of joined predictions with their names."""
    if not isinstance(values, dict):
        return [(name, values)]
    prefix = "" if name == "prediction" else f"{name}."
    return [part for key, value in values.items() for part in _named(value, f"{prefix}{key}")]


def _columns(name: str, value: Any) -> dict[str, Column]:
    if not isinstance(value, Tensor):
        return {name: value} if all(isinstance(item, str | int | float | bool) for item in value) else {}
    if value.ndim <= 1:
        return {name: value.reshape(-1).tolist()}
    rows = value.reshape(len(value), -1)
    if rows.shape[1] > MAX_COLUMNS:
        return dict.fromkeys(map(str, range(MAX_COLUMNS + 1)), ())
    names = [name] if rows.shape[1] == 1 else [f"{name}_{index}" for index in range(rows.shape[1])]
    return dict(zip(names, rows.T.tolist(), strict=True))


def _describe(value: Any) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"
