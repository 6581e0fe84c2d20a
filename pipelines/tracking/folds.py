"""Runs of cross-validation: which fold a run validated on, and what the runs of all folds share."""

from collections.abc import Mapping

from pipelines.tracking.tags import DATA_HASH_TAG, FOLD_PARAM, FOLDS_PARAM

_OF_A_FOLD = tuple(f"{DATA_HASH_TAG}.{split}" for split in ("train", "val"))


def fold_of(params: Mapping[str, str]) -> str | None:
    """Return the index of the fold that a run validated on; None if it has no folds."""
    return params.get(FOLD_PARAM, "0") if params.get(FOLDS_PARAM, "").isdecimal() else None


def shared_params(params: Mapping[str, str]) -> dict[str, str]:
    """Return the params of a run that those of its other folds share."""
    return {key: value for key, value in params.items() if key != FOLD_PARAM or fold_of(params) is None}


def shared_digests(tags: Mapping[str, str], params: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of a run's data, by tag; of a fold, those of the test set and of all other examples."""
    left_out = () if fold_of(params) is None else _OF_A_FOLD
    return {key: text for key, text in tags.items() if key.startswith(f"{DATA_HASH_TAG}.") and key not in left_out}
