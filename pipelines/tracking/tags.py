"""Names of the tags, params and metrics that pipelines and sweeps write, each in one place. Imports nothing.

Not listed here: the keys of a configuration (`model.lr`) and what modules log (`val/acc`). A tag that was renamed keeps
its old name next to it: tags that earlier versions wrote are read for ever.
"""

from collections.abc import Mapping

# What a run is and how it was made
EXPERIMENT_TAG = "litlab.experiment"  # name of the experiment, as in `litlab list`
COMMAND_TAG = "litlab.command"  # the command that made the run
CONFIG_HASH_TAG = "litlab.config_hash"  # SHA-256 of the configuration, without seed and place of the data
KNOWN_KEYS_TAG = "litlab.known_keys"  # prefix: which keys stand at their defaults; see config/known_keys.py
SEED_TAG = "seed"
FOUND_TAG = "litlab.found"  # JSON: keys whose values callbacks searched for, with the values found
USER_NOTE_TAG = "litlab.note"  # of a summary run: the note that a user gave, which its description begins with
REASON_TAG = "litlab.reason"  # why a run was KILLED or FAILED
STOP_TAG = "litlab.stop"  # with any value: the run is asked to stop; removed when it has ended
KEY_TAG = "litlab.key"  # random, to find a run whose creation was not acknowledged
TEST_METRICS_TAG = "litlab.test_metrics"  # JSON list: metrics of the test whose names do not tell
REPRODUCES_TAG = "litlab.reproduces"  # label of a published claim's job
REMOVED_TAG = "litlab.removed"  # when `litlab rm` removed the run with its files
CONTINUES_TAG = "litlab.continues"  # run whose checkpoint or weights a run started from
FROM_TAG = "litlab.from"  # run whose configuration a run started from
MONITOR_TAG, MODE_TAG = "litlab.monitor", "litlab.mode"  # metric that selected the weights, if it is not the usual one
LEAK_CHECK_TAG = "litlab.leak_check"  # prefix: whether `litlab.leak_check.test` has training examples
TESTED_TAG = "litlab.tested"  # prefix: `litlab.tested.SHA256` has the looks at a test set after the training; JSON
DATA_HASH_TAG = "data.sha256"  # prefix: `data.sha256.train` is the SHA-256 of the training set

# Where it comes from
COMMIT_TAG, DIRTY_TAG, DIFF_TAG = "git.commit", "git.dirty", "git.diff"  # of the project; see source_code.py
LITLAB_COMMIT_TAG, LITLAB_DIRTY_TAG, LITLAB_DIFF_TAG = (  # of litlab's checkout, if that is another repository
    "git.litlab.commit",
    "git.litlab.dirty",
    "git.litlab.diff",
)
FOLDER_COMMIT_TAG, FOLDER_DIRTY_TAG, FOLDER_DIFF_TAG = (  # of the project, if an earlier version had it beside litlab's
    "git.folder.commit",
    "git.folder.dirty",
    "git.folder.diff",
)
FOLDS_PARAM, FOLD_PARAM = "data.folds", "data.fold"  # params: number of folds, and the one that validates
NO_CHANGES = "none"  # value of DIFF_TAG, if nothing differs from the commit
RESUMED = "resumed."  # prefix of these tags, where a resume found another value
RESUMED_COMMIT_TAG = f"{RESUMED}{COMMIT_TAG}"
HOST_TAG, PLATFORM_TAG, PROCESSOR_TAG = "machine.host", "machine.platform", "machine.processor"
GPUS_TAG, CUDNN_TAG = "machine.gpus", "machine.cudnn"  # of runs on NVIDIA GPUs
MATMUL_TAG = "machine.float32_matmul"  # torch's precision of matrix products in float32, if it is not "highest"
PROCESS_TAG = "litlab.process"  # process id and start time, "PID:START"
PROCESS_COUNT_TAG = "litlab.processes"  # processes that train the run, if more than one
VERSION_TAG = "version"  # prefix: `version.torch`
COPIED_RUN_TAG, COPIED_STORE_TAG = "litlab.copied.run", "litlab.copied.store"  # run that a copy is of, and its store
COPIED_MODEL_TAG = "litlab.copied.model"  # of a logged model: the model that it is a copy of
COPYING_TAG = "litlab.copying"  # of a copy that is not complete

# Summary runs and their children
PARENT_TAG = "litlab.parent"  # set on summary runs; the value says of what: "sweep", "seeds", "comparison" ...
EXPLAIN_TAG = "litlab.explain"  # arguments of `litlab explain`, without the run and file names
OLD_EXPLAIN_TAG = "litlab.look"
STUDY_TAG = "study"
STAGE_TAG = "stage"  # of a sweep's child run
SEARCH, CONFIRM = "search", "confirm"  # stages
SWEEP_SUFFIX = "-sweep"  # of a study's name, in the name of its MLflow experiment
TRIAL_TAG, TRIAL_STATE_TAG = "trial", "trial.state"
CONFIGURATION_TAG = "configuration"  # of a sweep's child run: its values of the searched keys
CONTROLLER_TAG = "controller"  # of a sweep's child run: the controller that started it
BEST_RUN_TAG, BEST_TRIAL_TAG = "best.run", "best.trial"

# MLflow's own
NAME_TAG = "mlflow.runName"
COLOR_TAG = "mlflow.runColor"
NOTE_TAG = "mlflow.note.content"
PARENT_RUN_TAG = "mlflow.parentRunId"
SOURCE_NAME_TAG, SOURCE_TYPE_TAG, SOURCE_COMMIT_TAG = (
    "mlflow.source.name",
    "mlflow.source.type",
    "mlflow.source.git.commit",
)
USER_TAG = "mlflow.user"
EXPERIMENT_KIND_TAG = "mlflow.experimentKind"

# Params of summary runs
METRIC_PARAM, DIRECTION_PARAM, SEEDS_PARAM = "metric", "direction", "seeds"
SPACE_PARAM, SET_PARAM = "space", "set"  # prefixes: `space.model.lr`, `set.trainer.max_epochs`
SEED_PARAMS = ("seed_everything", "seed")  # litlab's param, then the common one
NOT_COMPARED = (  # what changes no result
    *SEED_PARAMS,
    "trainer.default_root_dir",
    "trainer.detect_anomaly",
    "trainer.enable_checkpointing",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)
CALLBACKS_PARAM = "trainer.callbacks"
PASSIVE_CALLBACKS = (  # of Lightning; they change no result
    "DeviceStatsMonitor",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "ModelSummary",
    "RichModelSummary",
    "RichProgressBar",
    "TQDMProgressBar",
    "ThroughputMonitor",
)

# Metrics
SELECTED = "selected"  # prefix: `selected/val/acc` is val/acc at the selected epoch
SELECTED_EPOCH, FIT_SECONDS, PARAMETERS = "selected_epoch", "fit_seconds", "parameters"
SELECTED_STEP = "selected_step"  # of a validation within an epoch
CONFIRMED = "confirmed"  # of a study's run: how many runs on fresh seeds have finished
DEFAULT = "default"  # prefix, of a study's run: metrics of the experiment's own configuration on fresh seeds
TRIALS, BEST, IMPORTANCE = "trials", "best", "importance"  # prefixes, of a study's run: `trials/complete`

LEARNING_RATE = "lr-"  # beginning of LearningRateMonitor's names: `lr-Adam`, `lr-SGD/pg1`
SYSTEM = "system"  # prefix: MLflow's metrics of the machine, `system/cpu_utilization_percentage`

# Keys of a run's configuration in `compare`, besides its params
EXPERIMENT_KEY, STAGE_KEY, DATA_HASH_KEY = "experiment", STAGE_TAG, DATA_HASH_TAG

SEEDS_TAG = "litlab.seeds"  # of a summary run to which seeds were added: its seeds, in place of SEEDS_PARAM
TIES_TAG = "litlab.ties"  # of a summary run of seeds: what decides between equal epochs; before, the first
DECISION_TAG = "litlab.decision"  # of a summary run of `litlab decide`: what it found
VERDICT_TAG = "litlab.verdict"  # of a study: whether its best configuration is better than the default
NOT_BETTER = "not better"  # the verdict begins with it, if it is not
_RESERVED_PREFIXES = ("litlab.", "mlflow.", "git.", "resumed.git.", "machine.", f"{DATA_HASH_TAG}", f"{VERSION_TAG}.")
_RESERVED = {
    SEED_TAG,
    STUDY_TAG,
    STAGE_TAG,
    TRIAL_TAG,
    TRIAL_STATE_TAG,
    CONFIGURATION_TAG,
    CONTROLLER_TAG,
    BEST_RUN_TAG,
    BEST_TRIAL_TAG,
}


def is_reserved(tag: str) -> bool:
    """Return whether litlab or MLflow sets a tag itself."""
    return tag in _RESERVED or tag.startswith(_RESERVED_PREFIXES)


def is_of_litlab(tags: Mapping[str, str]) -> bool:
    """Return whether litlab wrote a run, in this or an earlier version, or one that records what litlab does."""
    return bool({SEED_TAG, STUDY_TAG} & tags.keys()) or any(key.startswith(("litlab.", DATA_HASH_TAG)) for key in tags)


def is_summary(tags: Mapping[str, str]) -> bool:
    """Return whether a run summarises other runs, so that its metrics are theirs."""
    old_study = STUDY_TAG in tags and COMMAND_TAG in tags and PARENT_RUN_TAG not in tags  # written by earlier versions
    return PARENT_TAG in tags or old_study


def was_lost(tags: Mapping[str, str]) -> bool:
    """Return whether a training was lost with its node, and given to another run. It may have finished later.

    A trial of a search may have failed for another reason, such as its value; the runs of such a trial count.
    """
    is_trial = TRIAL_TAG in tags and tags.get(STAGE_TAG) != CONFIRM
    return tags.get(TRIAL_STATE_TAG) == "FAIL" and (REASON_TAG in tags or not is_trial)
