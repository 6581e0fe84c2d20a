"""Names of MLflow tags that litlab writes and reads."""

from collections.abc import Mapping

PARENT_TAG = "litlab.parent"  # of runs that stand for others: "sweep", "seeds", "comparison", "look"
LOOK_TAG = "litlab.look"  # what was asked of a run: litlab explain's arguments, without the run and places
EXPERIMENT, STAGE, DIGEST = "experiment", "stage", "data.sha256"  # of a configuration, beside its params
SEEDS = ("seed_everything", "seed")  # litlab's param, and the one that others use
NOT_COMPARED = (*SEEDS, "trainer.enable_progress_bar")  # as in the configuration's hash


def stands_for_others(tags: Mapping[str, str]) -> bool:
    """Whether a run's figures are those of other runs."""
    a_study = "study" in tags and "litlab.command" in tags and "mlflow.parentRunId" not in tags  # of an older litlab
    return PARENT_TAG in tags or a_study
