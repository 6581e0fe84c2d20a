"""The modules: what each is, and what is needed to search it, to stop it and to train it in two processes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STRANGERS = Path(__file__).parents[2] / "tests/fixtures/strangers"
HPARAMS = "`self.hparams.optimizer(...)`: LightningCLI keeps the configuration in `hparams`, not what is built from it"
OBJECTS = "LightningCLI reads checkpoints with `weights_only=True`, also with `--weights_only=false`"
FIND_UNUSED = "ddp_find_unused_parameters_true"
OWN_SAMPLER = ("--trainer.use_distributed_sampler=false",)
STREAM = "the training data are a stream, whose position cannot be saved"


@dataclass(frozen=True)
class Case:
    """A module with its configuration, `tests/fixtures/strangers/NAME.yaml`.

    Attributes:
        name: Name of the configuration file.
        what: The module, in a few words.
        key: Key of the configuration that is searched, and its values.
        metric: Validation metric that the search optimises.
        mode: "min" or "max".
        kill: Epoch and batch after which training is killed.
        strategy: Strategy for two processes.
        ddp: Further arguments for two processes.
        package: Package whose LightningCLI runs it.
        compared: Metric of the comparison, if it is not that of the search at the selected epoch.
        reasons: Why a cell cannot be ✓, by the name of its column; applies to both programs.
    """

    name: str
    what: str
    key: tuple[str, list[Any]]
    metric: str
    mode: str = "min"
    kill: tuple[int, int] = (1, 1)
    strategy: str = "ddp"
    ddp: tuple[str, ...] = ()
    package: str = "lightning.pytorch"
    compared: str = ""
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return STRANGERS / f"{self.name}.yaml"


NO_TEST = {"test": "the module has no `test_step`"}
CASES = [
    Case(
        "gan",
        "GAN, manual optimisation of two optimisers",
        ("model.lr", [0.001, 0.002]),
        "val_distance",
        strategy=FIND_UNUSED,
    ),
    Case("autoencoder", "autoencoder, handed encoder and decoder", ("model.learning_rate", [0.01, 0.02]), "val_loss"),
    Case("onecycle", "residual network, OneCycleLR per step", ("model.channels", [4, 8]), "valid/acc", "max"),
    Case("simclr", "SimCLR, lists of two views", ("model.temperature", [0.07, 0.5]), "val_acc_top1", "max"),
    Case(
        "protonet",
        "prototypical network, batch sampler",
        ("model.proto_dim", [4, 8]),
        "acc_val",
        "max",
        (2, 4),
        ddp=OWN_SAMPLER,
    ),
    Case(
        "dqn",
        "DQN, IterableDataset, own loaders, `max_steps`",
        ("model.gamma", [0.8, 0.9]),
        "total_reward",
        "max",
        kill=(0, 40),
        compared="total_reward",
        strategy=FIND_UNUSED,
        reasons={
            **NO_TEST,
            "validate": "the module has no `validation_step`",
            "sweep": "there is no validation metric to optimise",
            "within": "the replay buffer is not in the checkpoint",
        },
    ),
    Case("segmentation", "segmentation, only IoU", ("model.features", [4, 8]), "valid_dataset_iou", "max"),
    Case("forecaster", "forecaster, callables as hyperparameters", ("model.hidden", [8, 12]), "val_loss"),
    Case("graphnet", "graph network, batches of a data class", ("model.dp_rate", [0.0, 0.1]), "val_mae"),
    Case("textclf", "transformer for texts, padded dictionaries", ("model.dropout", [0.0, 0.1]), "val_f1", "max"),
    Case("transfer", "transfer learning, finetuning callback", ("model.lr", [0.01, 0.02]), "val_loss", kill=(3, 3)),
    Case(
        "injected",
        "network, optimiser and scheduler handed in",
        ("model.optimizer.lr", [0.01, 0.02]),
        "val/acc",
        "max",
        reasons=dict.fromkeys(("fit", "test", "validate", "resume", "within", "ddp"), HPARAMS),
    ),
    Case("vae", "variational autoencoder, no test", ("model.kl_coeff", [0.1, 0.5]), "val_loss", reasons=NO_TEST),
    Case(
        "pl_module",
        "module of `pytorch_lightning`, ReduceLROnPlateau",
        ("model.hidden_dim", [8, 16]),
        "avg_val_loss",
        package="pytorch_lightning",
    ),
    Case(
        "multihead",
        "two heads, a dictionary of training loaders",
        ("data.batch_size", [16, 32]),
        "val_loss/dataloader_idx_1",
        strategy=FIND_UNUSED,
        reasons={"within": "the training data are several loaders"},
    ),
    Case("kfold", "fold of a cross-validation, drawn in `setup`", ("data.fold", [0, 1]), "val/mae"),
    Case(
        "truncated",
        "LSTM, hidden state carried over batches",
        ("model.hidden_size", [8, 16]),
        "loss_val",
        kill=(1, 7),
        reasons={"within": "the hidden state is not in the checkpoint"},
    ),
    Case("ema", "EMAWeightAveraging", ("model.hidden", [8, 16]), "val_err"),
    Case("swa", "StochasticWeightAveraging", ("model.lr", [0.05, 0.1]), "val_loss", kill=(3, 4)),
    Case("ignored", 'save_hyperparameters(ignore=["net"])', ("model.lr", [0.01, 0.02]), "validation_loss"),
    Case("words", "batches of strings", ("model.embedding", [4, 8]), "val.loss"),
    Case("dictstep", "step returns a dictionary, logs steps and epochs", ("model.width", [8, 16]), "val/loss"),
    Case("accumulate", "gradients accumulated by hand", ("model.n_accumulate", [2, 4]), "val_nll", kill=(1, 8)),
    Case("outputs", "metrics from a list of outputs", ("model.lr", [0.05, 0.1]), "auc", "max"),
    Case("factory", "functions as class paths", ("model.depth", [1, 2]), "val_rmse"),
    Case(
        "reinforce",
        "policy gradients, `val_check_interval`",
        ("model.entropy_beta", [0.0, 0.01]),
        "eval_reward",
        "max",
        kill=(1, 20),
        reasons={"resume": STREAM, "within": STREAM},
    ),
    Case("experiment", "`self.logger.experiment` of MLFlowLogger", ("model.lr", [0.05, 0.1]), "Loss/val"),
    Case(
        "stateful",
        "paths, enumerations, NumPy numbers in checkpoints",
        ("model.lr", [0.01, 0.02]),
        "val_mse",
        reasons=dict.fromkeys(("test", "validate", "resume", "within"), OBJECTS),
    ),
    Case("closure", "L-BFGS, own loaders", ("model.width", [5, 10]), "val_error", kill=(2, 0)),
]
