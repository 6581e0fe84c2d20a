"""Whether a training would repeat a finished run."""

from collections.abc import Callable, Mapping
from typing import Any

from datamodules.in_memory import InMemoryDataModule
from pipelines.runtime.log import logger
from pipelines.runtime.process import started_by_rank_zero
from pipelines.tracking import source_code
from pipelines.tracking.source_code import same_code
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import CONTINUES_TAG, DATA_HASH_TAG
from pipelines.training.job import Training

FindEqual = Callable[[Store, str, Mapping[str, Any], Mapping[str, str]], StoredRun | None]


def equal_run(training: Training, tags: Mapping[str, str], find: FindEqual) -> StoredRun | None:
    """Return a finished run that a training would repeat; None if there is none.

    A training that starts from a checkpoint file is never a repetition, because the file may have changed. The result
    is also None in a process that rank zero has started: then rank zero has decided to train.

    Args:
        training: The prepared training.
        tags: Tags of its run.
        find: Finds the run by store, experiment, params and tags.
    """
    config = training.cli.config
    starts = config.ckpt_path is not None or config.weights is not None
    if started_by_rank_zero() or (starts and CONTINUES_TAG not in tags):
        return None
    described = training.data.describe()["sha256"] if isinstance(training.data, InMemoryDataModule) else {}
    digests = {f"{DATA_HASH_TAG}.{split}": digest for split, digest in described.items()}
    store, code = Store(config.tracking_uri), source_code.peek().tags
    if not same_code(code, code):
        logger.warning("--if_needed: without a git repository the code of earlier runs is unknown; training again")
        return None
    return find(store, config.name, training.cli.params(), {**code, **tags, **digests})
