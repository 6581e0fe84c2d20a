"""The verbs of `litlab`: the module of each, and its line in `litlab --help` and in completions."""

VERBS = {
    "list": ("pipelines.commands.list", "list the experiments"),
    "new": ("pipelines.commands.new", "make a project of your own from a template"),
    "fit": ("pipelines.commands.fit", "train an experiment and test its best epoch, as one MLflow run"),
    "resume": ("pipelines.commands.resume", "resume an interrupted training in the same run"),
    "sync": ("pipelines.commands.sync", "send data that a tracking server or database could not receive"),
    "validate": ("pipelines.commands.evaluate", "evaluate a finished run on its validation set"),
    "test": ("pipelines.commands.evaluate", "evaluate a finished run on its test set"),
    "predict": ("pipelines.commands.predict", "classify image files with the model of a finished run"),
    "tune": ("pipelines.commands.tune", "suggest a learning rate or a batch size"),
    "sweep": ("sweeps.commands.sweep", "search hyperparameters with Optuna; every trial is a run"),
    "runs": ("pipelines.commands.runs", "list runs of any status: what ran, when, how long, how good"),
    "show": ("pipelines.commands.show", "show one run on one screen"),
    "diff": ("pipelines.commands.diff", "show what differs between two runs"),
    "stop": ("pipelines.commands.stop", "stop a run or a study from another shell or machine"),
    "rm": ("pipelines.commands.rm", "remove runs with their files, models and checkpoints"),
    "copy": ("pipelines.commands.copy", "copy runs to another tracking store"),
    "compare": ("pipelines.commands.compare", "compare finished runs: mean, spread and differences over seeds"),
    "report": ("pipelines.commands.report", "write a self-contained HTML report of a study or an experiment"),
    "reproduce": ("sweeps.commands.reproduce", "run the published experiments and judge each published claim"),
    "register": ("pipelines.commands.register", "register a run's model in MLflow's model registry"),
    "baseline": ("pipelines.commands.baseline", "train a scikit-learn model on the same data, in the same MLflow"),
    "inspect": ("pipelines.commands.inspect", "show layers: sizes, parameters, multiply-adds, receptive fields"),
    "explain": ("pipelines.commands.explain", "explain a trained network: what it has learned, and what fools it"),
    "doctor": ("pipelines.commands.doctor", "check the installation and repair what can be repaired"),
    "ui": ("pipelines.commands.ui", "open the MLflow UI on this project's runs"),
    "completion": ("pipelines.commands.completion", "print the script that completes verbs and options in a shell"),
}
# Verbs that import classes which a configuration or a run names
WITH_CLASSES = frozenset(
    ["fit", "resume", "validate", "test", "predict", "tune", "sweep", "baseline", "inspect", "explain"]
)
FIT_SEEDS = "sweeps.commands.fit_seeds"  # of `litlab fit --seeds N`
