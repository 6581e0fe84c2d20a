"""Metrics that callbacks and schedulers monitor: one that is never logged is the user's mistake."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from modules.base import Learner
from pipelines.runtime.errors import UserError
from pipelines.runtime.metric_names import find_metric, list_metrics

Monitored = tuple[str, str]  # the metric, and what monitors it


def check_monitors(
    given: str | None, callbacks: Sequence[Callback], model: LightningModule, data: LightningDataModule | None
) -> None:
    """Check what is monitored before there is a run: for modules of litlab, whose metrics are known.

    Args:
        given: The metric of `--monitor`, if there is one.
        callbacks: The callbacks of the configuration. If any is not Lightning's, it may log metrics of its own.
        model: The module.
        data: The data module.

    Raises:
        UserError: A metric will not be logged; the message lists those that will.
    """
    is_litlabs = isinstance(model, Learner) and type(model).__module__.startswith("modules.")
    if not is_litlabs or not all(type(callback).__module__.startswith("lightning.") for callback in callbacks):
        return
    assert isinstance(model, Learner)
    logged = [name for name in model.logged_names() if not name.startswith("train_end/") or _evaluates_train(data)]
    monitored = [] if given is None else [(given, "--monitor")]
    for metric, source in [*monitored, *_of_callbacks(callbacks), *_of_scheduler(model)]:
        if find_metric(metric, logged) is None:
            raise UserError(_message(metric, source, logged))


@contextmanager
def explained_monitors(trainer: Trainer) -> Iterator[None]:
    """Raise UserError instead of Lightning's error about a metric that is monitored, but not logged."""
    try:
        yield
    except Exception as error:
        if message := _missing_metric(trainer, error):
            raise UserError(message) from error
        raise


def _missing_metric(trainer: Trainer, error: Exception) -> str | None:
    """Return what to say of an error if it was raised for a metric that is monitored, but not logged; else None."""
    logged = dict(trainer.callback_metrics)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    schedulers = [(config.monitor, type(config.scheduler).__name__) for config in trainer.lr_scheduler_configs]
    for metric, source in [*_of_callbacks(callbacks), *schedulers]:
        if metric and metric not in logged and metric in str(error) and not isinstance(error, UserError):
            return _message(metric, source, logged)
    return None


def _of_callbacks(callbacks: Iterable[Callback]) -> Iterator[Monitored]:
    for callback in callbacks:
        is_strict = not isinstance(callback, EarlyStopping) or callback.strict
        if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor is not None and is_strict:
            yield callback.monitor, type(callback).__name__


def _of_scheduler(model: Learner) -> Iterator[Monitored]:
    made = model.configure_optimizers()
    config = made.get("lr_scheduler") if isinstance(made, dict) else None
    if isinstance(config, dict) and (metric := config.get("monitor")):
        yield str(metric), type(config["scheduler"]).__name__


def _evaluates_train(data: LightningDataModule | None) -> bool:
    return bool(getattr(data, "evaluate_train", False))


def _message(metric: str, source: str, logged: Iterable[str]) -> str:
    monitors = f"{source} {metric}" if source.startswith("--") else f"{source} monitors {metric}, which"
    return f"{monitors} is not logged; monitor one of {list_metrics(logged, metric)}"
