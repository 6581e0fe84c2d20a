"""What the name of a metric tells: whether lower values are better, and the split it belongs to. Imports nothing heavy.

Modules name their metrics as they like: `val/loss`, `val_loss`, `Valid Loss`, `loss/val`, `test_iou/dataloader_idx_0`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Literal

Mode = Literal["min", "max"]
Split = Literal["train", "train_end", "val", "test"]

_LOWER = re.compile(
    r"loss|error|err|mse|rmse|mae|mape|smape|wmape|msle|nll|bce|ce|kl|kld|divergence|perplexity|ppl|bpd|wer|cer|mer|fid|kid"
    r"|lpips|contrastive|triplet|nce|infonce|ntxent|distance|brier|ece|hamming|crps|regret|cost|seconds|parameters|dead|changed"
)
_HIGHER = re.compile(
    r"acc|accuracy|precision|recall|sensitivity|specificity|f|fbeta|fscore|score|auc|auroc|roc|ap|map|ndcg|mrr|hits?|iou"
    r"|miou|jaccard|dice|kappa|mcc|r|psnr|ssim|bleu|rouge|meteor|cider|sdr|snr|is|reward|returns?|correct|correlation"
    r"|corr|similarity|likelihood|elbo|explained|top|win|success|agreement|purity"
)
_PROPORTION = re.compile(  # in [0, 1]
    r"acc|accuracy|precision|recall|sensitivity|specificity|f|fbeta|fscore|auc|auroc|iou|miou|jaccard|dice|ap|ndcg|mrr|purity"
)
_POSITIVE = re.compile(
    r"seconds|time|duration|parameters|loss|error|mse|rmse|mae|mape|perplexity|ppl|distance|brier|epochs?"
)
SIMILAR = 0.65  # of two names of metrics, from 0 to 1
_COMPOUND = re.compile(r"(loss|error|perplexity|distance|divergence)$")  # xloss, crossentropyloss
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SPLIT_WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(_SPLITS)})(?![a-z])", re.IGNORECASE)
_SPLIT_CAMEL = re.compile(r"^(train|val|valid|test)(?=[A-Z])")  # valLoss
_SPLIT_PHRASE = re.compile(  # on_test, of the validation set
    rf"(?:(?<![a-z])(?:on|of|for|in)[/_\-. ](?:the[/_\-. ])?)?{_SPLIT_WORD.pattern}(?:[/_\-. ](?:set|data)$)?",
    re.IGNORECASE,
)
_LOADER = re.compile(r"/dataloader_idx_(\d+)$")
_TRAIN_END = "train_end/"
_SEPARATORS = "/_-. "


def mode_of(metric: str) -> Mode:
    """Return "min" if lower values of a metric are better, judged by its name, else "max".

    The name without its split is cut at everything that is not a letter. It is "min" if one of the words is a loss, an
    error or a distance, such as `loss`, `mae` or `perplexity`, or ends in one of these words.
    """
    return "min" if any(_LOWER.fullmatch(word) or _COMPOUND.search(word) for word in _words(metric)) else "max"


def tells_mode(metric: str) -> bool:
    """Return whether the name of a metric tells which values are better; else `mode_of` is a guess."""
    return mode_of(metric) == "min" or any(_HIGHER.fullmatch(word) for word in _words(metric))


def bounds_of(metric: str, values: Iterable[float]) -> tuple[float, float]:
    """Return the lowest and highest value that a metric can have, judged by its name and by values of it.

    A proportion, such as an accuracy, is in [0, 1] if all values are. Losses, durations and numbers of things are at
    least 0, if all values are. Of other metrics, the name does not tell.
    """
    words, known = _words(metric), list(values)
    if min(known, default=0.0) < 0:
        return -math.inf, math.inf
    if any(_PROPORTION.fullmatch(word) for word in words):
        return 0.0, (1.0 if max(known, default=0.0) <= 1 else math.inf)
    return (
        0.0 if metric == "selected_epoch" or any(_POSITIVE.fullmatch(word) for word in words) else -math.inf
    ), math.inf


def is_accuracy(metric: str) -> bool:
    """Return whether a metric is a proportion of examples, judged by its name: `test/acc`, `test_accuracy`."""
    return bool({"acc", "accuracy"}.intersection(_words(metric)))


def _words(metric: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", without_split(metric).lower()) if word]


def split_of(metric: str) -> Split | None:
    """Return the split that a metric was measured on, judged by its name; None if the name does not tell.

    It is the first word that names a split: `val`, `valid`, `validation`, `dev` or `eval`, `train`, `test` ... Metrics
    that litlab's modules measure on the training set after an epoch, `train_end/...`, are a split of their own.
    """
    if metric.startswith(_TRAIN_END):
        return "train_end"
    found = _SPLIT_CAMEL.match(metric) or _SPLIT_WORD.search(metric)
    return _SPLITS[found[0].lower()] if found else None


def without_split(metric: str) -> str:
    """Return the name of a metric without its split: `loss` of `val/loss`, `loss_on_val` and `train_loss_epoch`."""
    metric = re.sub(r"_epoch(?=$|/)", "", metric)  # of a metric that is logged by step, too
    if metric.startswith(_TRAIN_END):
        return metric.removeprefix(_TRAIN_END)
    if found := _SPLIT_CAMEL.match(metric):
        return metric[found.end()].lower() + metric[found.end() + 1 :]
    name = _LOADER.sub("", metric)
    if found := _SPLIT_PHRASE.search(name):
        rest = (name[: found.start()] + name[found.end() :].lstrip(_SEPARATORS)).rstrip(_SEPARATORS)
        return f"{rest}{metric[len(name) :]}" if rest else metric
    return metric


def find_metric(name: str, available: Iterable[str]) -> str | None:
    """Return the metric of this name, or that of the first data loader if it was measured on several; None if none."""
    known = set(available)
    return next((found for found in (name, f"{name}/dataloader_idx_0") if found in known), None)


def nearest_metric(name: str, available: Iterable[str]) -> str | None:
    """Return the metric that a misspelt name stands for, such as `val/accuracy` for `val/acc`; None if none is similar.

    It is one of the same split.
    """
    split = split_of(name)
    known = [metric for metric in by_loader(available) if split is None or split_of(metric) in (split, None)]
    nearest = max(known, key=lambda metric: _similarity(name, metric), default=None)
    return nearest if nearest is not None and _similarity(name, nearest) > SIMILAR else None


def list_metrics(names: Iterable[str], meant: str) -> str:
    """Return names of metrics for a message, and which of them a name may stand for that is not among them."""
    known = sorted(names)
    nearest = nearest_metric(meant, known)
    return (", ".join(known) or "no metrics") + (f"; did you mean {nearest}?" if nearest else "")


def _similarity(name: str, metric: str) -> float:
    """Return a similarity from 0 to 1: of what is measured, where one name may be short for the other."""
    one, other = (_LOADER.sub("", without_split(each)).lower() for each in (name, metric))
    whole = SequenceMatcher(None, name.lower(), metric.lower()).ratio() / 100  # decides between equal ones
    is_short = len(one) > 1 and len(other) > 1 and (one.startswith(other) or other.startswith(one))
    return whole + max(SequenceMatcher(None, one, other).ratio(), 0.8 if is_short else 0)


def labels_of(metrics: Sequence[str]) -> dict[str, str]:
    """Return a label for each metric of one split: its name without the split, or all of it if two would be alike."""
    short = {metric: without_split(metric) for metric in metrics}
    shorts = list(short.values())
    return {metric: label if shorts.count(label) == 1 else metric for metric, label in short.items()}


def of_split(metrics: Mapping[str, float], split: Split, names: Iterable[str] = ()) -> dict[str, float]:
    """Return the metrics of a split, and those in `names`, by their labels; see `labels_of`."""
    others = set(names)
    chosen = [metric for metric in metrics if split_of(metric) == split or metric in others]
    return {label: metrics[metric] for metric, label in labels_of(chosen).items()}


def by_loader(metrics: Iterable[str]) -> list[str]:
    """Return metrics in their order, but one that was measured on several data loaders in the order of the loaders."""
    names = list(metrics)
    bases = [_LOADER.sub("", name) for name in names]
    loaders = [int(found[1]) if (found := _LOADER.search(name)) else -1 for name in names]
    return [name for *_, name in sorted(zip(map(bases.index, bases), loaders, names, strict=True))]


def shown_in_epoch(metrics: Iterable[str]) -> list[str]:
    """Return the metrics of an epoch in order, without the parts of those that were logged by step and by epoch."""
    known = set(metrics)
    bases = {name: re.sub(r"_(step|epoch)(?=$|/)", "", name) for name in known}
    return by_loader(sorted(name for name, base in bases.items() if base == name or base not in known))


def distinct_metrics(metrics: Iterable[str]) -> list[str]:
    """Return the metrics that are not another one in another form: its mean by epoch, or that of a further loader."""
    return [name for name in shown_in_epoch(metrics) if not re.search(r"/dataloader_idx_[1-9]", name)]
