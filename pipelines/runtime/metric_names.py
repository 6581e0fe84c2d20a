"""What the name of a metric tells: whether lower values are better. Imports nothing heavy."""

import re
from typing import Literal

Mode = Literal["min", "max"]

_LOWER = re.compile(
    r"loss|error|err|mse|rmse|mae|mape|smape|wmape|msle|nll|bce|ce|kl|kld|divergence|perplexity|ppl|bpd|wer|cer|mer|fid|kid"
    r"|lpips|distance|brier|ece|hamming|crps|regret|cost|seconds|parameters|dead|changed"
)
_COMPOUND = re.compile(r"(loss|error|perplexity|distance|divergence)$")  # xloss, crossentropyloss


def mode_of(metric: str) -> Mode:
    """Return "min" if lower values of a metric are better, judged by its name, else "max".

    The name is split at everything that is not a letter. It is "min" if one of the words is a loss, an error or a
    distance, such as `loss`, `mae` or `perplexity`, or ends in one of these words.
    """
    words = [word for word in re.split(r"[^a-z]+", metric.lower()) if word]
    return "min" if any(_LOWER.fullmatch(word) or _COMPOUND.search(word) for word in words) else "max"
