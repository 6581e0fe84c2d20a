"""Export the model of a run that has none yet, from one batch of its data."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from datamodules.base import InMemoryDataModule
from modules.base import trainer_of
from pipelines.config.example_batch import class_names, describe, example_batch
from pipelines.evaluation.load_run import load_run
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line
from pipelines.tracking import logged_model
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import SELECTED_EPOCH
