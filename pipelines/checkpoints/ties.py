"""Which of several validations with the same value of the selecting metric is the best: that with the lowest loss."""

import math
from collections.abc import Mapping
from typing import Any

from pipelines.runtime.metric_names import find_metric

TIE_BREAKERS = ("val/loss", "val_loss")  # the first that is logged


def tie_score(logged: Mapping[str, Any], monitor: str | None) -> float | None:
    """Return the negative validation loss among logged metrics; None if there is none, or if it is the monitor."""
    name = next((found for usual in TIE_BREAKERS if (found := find_metric(usual, logged))), None)
    if name is None or name == monitor:
        return None
    loss = float(logged[name])
    return -math.inf if math.isnan(loss) else -loss
