"""Speed of training a Neural Turing Machine on copying, against the same machine written step by step.

One call is a whole training step: forward, backward, clipping and Graves's RMSprop, at the paper's sizes (LSTM
controller of 100 units, memory of 128 x 20, one head of each kind) on sequences of 10 vectors. Each row also says what a
step holds at its peak. The package index has no Neural Turing Machine to compare with: under that name and its
abbreviations are other things, and `dnc`, the nearest, is the later machine with its own addressing. So the figures to
reach are set against a version of our own that loops over the batch, as widely read code does; the batched version
"per step" is faster from a batch of 16 on, and the chapter says which figures would not be reached against it. A
sequence of a batch of 64 is to cost ten times less than one alone on a GPU: that compares two rows, which a `Goal` does
not, so the chapter computes it from their rates (`attn.experiments.ntm.speeds`).
"""

from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from torch import nn

from attn.data.episodic import CopyTask, Episodes
from attn.evaluation.episodic import answer_nats
from attn.ntm import NTM
from attn.training import TrainingConfig, generator_for, set_seed
from attn.training.optimizers import build_optimizers, clip_gradients
from benchmarks.reversible import held_bytes
from benchmarks.timing import Goal, Row, main
from tests.ntm.per_step import PerStepNTM

LENGTH = 10
BATCH_SIZES = (1, 16, 32, 64)
LOOPS = "per step, loops over the batch"
GOALS = {1: Goal(LOOPS, 2), 16: Goal(LOOPS, 4), 32: Goal(LOOPS, 5)}  # by batch size
MEMORY_GOAL = Goal(LOOPS, 1)


class _LogitsFirst(nn.Module):
    """Returns the logits as `NTM` does, first of what there is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.model(inputs),)


def training_step(model: nn.Module, episodes: Episodes) -> Callable[[], None]:
    """One update as `attn.training` makes it."""
    batch_size = episodes.inputs.shape[0]
    config = TrainingConfig(
        max_steps=1,
        batch_size=batch_size,
        optimizer="rmsprop_graves",
        lr=1e-4,
        momentum=0.9,
        grad_clip_value=10.0,
    )
    parameters = list(model.parameters())
    (optimizer,) = build_optimizers(config, parameters)

    def step() -> None:
        (answer_nats(model(episodes.inputs)[0], episodes).sum() / batch_size).backward()
        clip_gradients([parameter.grad for parameter in parameters], config)
        optimizer.step()
        optimizer.zero_grad()

    return step


def copy_row(batch_size: int) -> Row:
    """Copying with `batch_size` sequences at a time."""

    def build(device: torch.device) -> Mapping[str, Callable[[], None]]:
        set_seed(0)
        task = CopyTask(min_length=LENGTH, max_length=LENGTH)
        episodes = task.sample(batch_size, generator_for(0, "benchmark")).to(device)
        model = NTM(n_inputs=task.n_inputs, n_outputs=task.n_outputs).to(device)
        scan, plain = deepcopy(model), deepcopy(model)
        scan.path, plain.path = "scan", "loop"
        models = {
            "attn.ntm": model,
            "attn.ntm, not compiled": scan,
            "attn.ntm, loop left to autograd": plain,
            "per step": _LogitsFirst(PerStepNTM(model)),
            LOOPS: _LogitsFirst(PerStepNTM(model, loop_over_batch=True)),
        }
        return {name: training_step(variant, episodes) for name, variant in models.items()}

    return Row(
        name=f"copy, batch {batch_size}", units=batch_size, build=build, goal=GOALS.get(batch_size),
        peak=held_bytes, memory_goal=MEMORY_GOAL,
    )  # fmt: skip


def rows() -> list[Row]:
    """Each batch size."""
    return [copy_row(batch_size) for batch_size in BATCH_SIZES]


if __name__ == "__main__":
    main(rows(), module="benchmarks.ntm", unit="sequences")
