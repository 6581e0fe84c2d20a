"""What the search and the confirmation of a study share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import (
    CONFIGURATION_TAG,
    CONTROLLER_TAG,
    PARENT_RUN_TAG,
    STAGE_TAG,
    STUDY_TAG,
    TRIAL_TAG,
)
from sweeps.search.display import SweepDisplay
from sweeps.search.space import Space
from sweeps.search.study import Study
from sweeps.search.trial_state import params_key
from sweeps.workers.job import Job, as_arguments
from sweeps.workers.pool import Pool


@dataclass(frozen=True)
class SearchContext:
    """A study with everything that its trainings need.

    Attributes:
        study: The study.
        pool: Trains.
        store: The tracking store.
        parent: The study's own run.
        experiment: MLflow experiment of the parent and its children.
        arguments: The experiment, and the keys that are the same in all trials, as on the command line.
        devices: GPUs per training, where there are any.
        display: What the user sees.
        stacked: Trainings that one process trains together.
    """

    study: Study
    pool: Pool
    store: Store
    parent: Run
    experiment: str
    arguments: list[str]
    devices: int
    display: SweepDisplay
    stacked: int = 1

    @property
    def space(self) -> Space:
        return self.study.space

    @property
    def stop_requests(self) -> int:
        """How often the user has asked to stop: once gracefully, twice at once."""
        return self.pool.stop_requests

    def search_job(self, params: Mapping[str, Any], seed: int, trial: int) -> Job:
        """Return the training of a trial with one of its seeds."""
        name = f"trial {trial}" + (f" seed {seed}" if self.space.seeds > 1 else "")
        tags = {STAGE_TAG: "search", TRIAL_TAG: str(trial), CONFIGURATION_TAG: params_key(params)}
        return self._job(self.space.settings(params), seed, name, tags, pruner=self.study.pruner_name)

    def confirm_job(self, settings: dict[str, Any], seed: int, label: str, trial: str) -> Job:
        """Return the training of a configuration on a fresh seed, with the test at its end."""
        tags = {STAGE_TAG: "confirm", TRIAL_TAG: trial, CONFIGURATION_TAG: params_key(settings)}
        return self._job(settings, seed, f"confirm {label} seed {seed}", tags, test=True)

    def _job(self, settings: dict[str, Any], seed: int, name: str, tags: dict[str, str], **options: Any) -> Job:
        study_tags = {
            PARENT_RUN_TAG: self.parent.run_id,
            STUDY_TAG: self.study.name,
            CONTROLLER_TAG: self.study.controller,
        }
        return Job(
            arguments=[*self.arguments, *as_arguments(settings)],
            seed=seed,
            experiment=self.experiment,
            tracking_uri=self.store.uri,
            run_name=name,
            tags={**study_tags, **tags},
            metric=self.space.metric,
            devices=self.devices,
            **options,
        )
