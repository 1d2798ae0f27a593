"""Training, the same for every chapter: `train(workload, config, seed=...)`."""

from attn.training.checkpoint import CheckpointError
from attn.training.config import TrainingConfig
from attn.training.distributed import distributed
from attn.training.loop import BatchLoss, NonFiniteError, TrainingResult, Workload, train
from attn.training.progress import Progress
from attn.training.seeding import generator_for, set_seed

__all__ = [
    "BatchLoss",
    "CheckpointError",
    "NonFiniteError",
    "Progress",
    "TrainingConfig",
    "TrainingResult",
    "Workload",
    "distributed",
    "generator_for",
    "set_seed",
    "train",
]
