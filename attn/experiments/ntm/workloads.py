"""What a run of the Neural Turing Machine's chapter is: its config, how it trains, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attn.data.associative_recall import AssociativeRecallTask
from attn.data.episodic import CopyTask, Episodes, EpisodicTask, padded
from attn.data.ngrams import NGramTask
from attn.data.priority_sort import PrioritySortTask
from attn.data.repeat_copy import RepeatCopyTask
from attn.evaluation.episodic import bit_errors, episode_bits, right_ends
from attn.ntm import NTM, LSTMBaseline
from attn.reproduction.errors import choose
from attn.reproduction.experiment import Metric, Outcome
from attn.training.config import TrainingConfig
from attn.training.episodic import EpisodicWorkload
from attn.training.seeding import generator_for, set_seed

MODELS = ("ntm_lstm", "ntm_ff", "lstm")
_AT_ONCE = 100  # episodes in one evaluation batch

Size = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of a model; the fields of the memory do not concern the LSTM."""

    kind: str  # one of MODELS
    size: int  # units a layer
    n_layers: int = 1  # layers of the controller, or of the LSTM
    n_heads: int = 1  # as many read as write heads
    n_slots: int = 128  # memory locations
    slot_dim: int = 20  # width of a location
    shift_range: int = 1  # largest shift; not stated in the paper, whose example is 1

    def __post_init__(self) -> None:
        choose("kind of model", self.kind, MODELS)


@dataclass(frozen=True, kw_only=True)
class EpisodicConfig:
    """One run: model, task, training and evaluation. A size is what the task's `draw` takes, as (length, repeats).

    Raises:
        ValueError: if a size is not one of the task's, or an NTM has fewer slots than the longest episode has vectors,
            or items of them, to remember.
    """

    model: ModelConfig
    task: EpisodicTask  # draws the training episodes
    training: TrainingConfig
    same_length: bool = True  # one size for all episodes of an update
    validation_count: int  # validation episodes of each training size
    test_sizes: tuple[Size, ...]  # sizes of the final test, beyond training for the most part
    test_count: int  # test episodes of each of these sizes
    trace_size: Size  # size of the episode whose weightings and add vectors are kept

    def __post_init__(self) -> None:
        for name, sizes in (("test_sizes", self.test_sizes), ("trace_size", (self.trace_size,))):
            self._check_sizes(name, sizes)
        sizes = [size for size in (*self.test_sizes, self.trace_size) if size]
        longest = max([self.task.n_vectors, *(size[0] for size in sizes)])
        if self.task.n_vectors and self.model.kind != "lstm" and longest > self.model.n_slots:
            raise ValueError(
                f"n_slots must be at least {longest}, a slot for each vector or item of the longest episode in "
                f"training, test or trace; got {self.model.n_slots}"
            )

    def _check_sizes(self, name: str, sizes: Sequence[Size]) -> None:
        """The final test and the trace come after hours of training: a size that cannot be drawn is refused before."""
        count, task = len(self.task.size_ranges), type(self.task).__name__
        for size in sizes:
            fits = isinstance(size, Sequence) and len(size) == count
            if not fits or not all(type(number) is int and number >= 1 for number in size):
                raise ValueError(
                    f"{name} must hold sizes of {count} whole numbers of at least 1, as {task} draws; got {size!r}"
                )


def build_model(config: ModelConfig, *, n_inputs: int, n_outputs: int, machine: type[NTM] = NTM) -> nn.Module:
    """The model of a config, for a task's channels.

    Args:
        machine: the class of Neural Turing Machines.
    """
    if config.kind == "lstm":
        return LSTMBaseline(
            n_inputs=n_inputs, n_outputs=n_outputs, size=config.size, n_layers=config.n_layers
        )
    return machine(
        n_inputs=n_inputs,
        n_outputs=n_outputs,
        controller="lstm" if config.kind == "ntm_lstm" else "feedforward",
        controller_size=config.size,
        controller_layers=config.n_layers,
        n_slots=config.n_slots,
        slot_dim=config.slot_dim,
        n_read_heads=config.n_heads,
        n_write_heads=config.n_heads,
        shift_range=config.shift_range,
    )


class TaskWorkload(EpisodicWorkload):
    """Any of the tasks: validation on the training sizes, final test on the config's `test_sizes`.

    Validation and test episodes depend on the task and the size alone, so that all models and seeds see the same.

    Attributes:
        machine: the class of Neural Turing Machines.
    """

    machine = NTM

    def __init__(self, config: EpisodicConfig, seed: int, device: torch.device) -> None:
        set_seed(seed)
        self.config = config
        task = config.task
        model = build_model(
            config.model, n_inputs=task.n_inputs, n_outputs=task.n_outputs, machine=self.machine
        ).to(device)
        super().__init__(
            model=model, task=task, batch_size=config.training.batch_size, seed=seed,
            same_length=config.same_length,
            validation=_batched([self.draw("validation", config.validation_count, s) for s in task.sizes()]),
        )  # fmt: skip

    def draw(self, use: str, count: int, size: Size) -> Episodes:
        """`count` episodes of one size on the CPU, always the same for the same use."""
        task = self.config.task
        return task.draw(count, generator_for(0, type(task).__name__, use, *size), *size)

    def test_batches(self, size: Size) -> list[Episodes]:
        """The test episodes of one size, on the model's device."""
        return [
            batch.to(self.device) for batch in _batched([self.draw("test", self.config.test_count, size)])
        ]

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """Cost in and beyond the training sizes, the answers to one episode of each, and one traced episode."""
        model.eval()
        metrics = {"bits_per_sequence": self.validation_metric(history)}
        arrays: dict[str, np.ndarray] = {}
        for size in self.config.test_sizes:
            batches = self.test_batches(size)
            metrics |= self.test_metrics(model, batches, size)
            arrays |= _answer(model, batches[0].split(1)[0], _name(size))
        if isinstance(model, NTM):
            arrays |= _trace(model, self.draw("trace", 1, self.config.trace_size).to(self.device))
        return Outcome(metrics, arrays)

    def validation_metric(self, history: Sequence[Mapping[str, Any]]) -> Metric:
        """Cost of the validation episodes after the last update."""
        count = sum(len(batch.inputs) for batch in self.validation)
        return Metric(
            history[-1]["bits_per_sequence"],
            "bits per sequence",
            f"cross-entropy summed over all {self.config.task.n_outputs} outputs and the answer's steps, log base 2, "
            f"mean over {count} validation sequences of the training sizes, after the last update",
        )

    def test_metrics(self, model: nn.Module, batches: Sequence[Episodes], size: Size) -> dict[str, Metric]:
        """Cost per bit and wrong bits of the vectors answered, for the test episodes of one size."""
        n_bits = self.config.task.n_bits
        vectors = slice(n_bits)
        answered = int(batches[0].scored[0].sum()) * n_bits
        cost = float(episode_bits(model, batches, vectors).mean())
        wrong = float(bit_errors(model, batches, vectors).double().mean())
        where = self.where(size)
        return {
            f"bits_per_bit{_at(size)}": Metric(
                cost / answered,
                "bits per output bit",
                f"cross-entropy of the answer over its {answered} bits, markers left out; {where}",
            ),
            f"bit_errors{_at(size)}": Metric(
                wrong, "bits per sequence", f"bits on the wrong side of one half in the answer; {where}"
            ),
        }

    def where(self, size: Size) -> str:
        """Which sequences a test metric is the mean of."""
        of = f" of size {_name(size)}" if size else ""
        return f"mean over {self.config.test_count} test sequences{of}, the same for every model and seed"


# The annotation names the code that draws the episodes as something that a run depends on.
class CopyWorkload(TaskWorkload):
    """Copy."""

    task: CopyTask


class AssociativeWorkload(TaskWorkload):
    """Associative recall."""

    task: AssociativeRecallTask


class PrioritySortWorkload(TaskWorkload):
    """Priority sort."""

    task: PrioritySortTask


class RepeatCopyWorkload(TaskWorkload):
    """Repeat copy: the end marker has metrics of its own."""

    task: RepeatCopyTask

    def test_metrics(self, model: nn.Module, batches: Sequence[Episodes], size: Size) -> dict[str, Metric]:
        """Also the end marker's cost, and how often it is right at every step."""
        marker = self.task.n_bits
        where = self.where(size)
        cost = float(episode_bits(model, batches, slice(marker, None)).mean())
        right = float(right_ends(model, batches, marker).double().mean())
        return super().test_metrics(model, batches, size) | {
            f"marker_bits{_at(size)}": Metric(
                cost,
                "bits per sequence",
                f"cross-entropy of the end marker's output over the answer; {where}",
            ),
            f"right_ends{_at(size)}": Metric(
                right,
                "share of sequences",
                f"end marker on the right side of one half at every step of the answer; {where}",
            ),
        }


class NGramWorkload(TaskWorkload):
    """Dynamic n-grams: the validation sequences are also costed with the best estimator there is."""

    task: NGramTask

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """Cost on the validation sequences beside the optimal one, and predictions on the traced one."""
        model.eval()
        bits = torch.cat([batch.targets[..., 0] for batch in self.validation]).cpu()
        optimal = _bits_of(self.task.optimal(bits), bits).sum(1)  # [sequences]
        context_free = _bits_of(replace(self.task, order=1).optimal(bits), bits).sum(1)
        above = episode_bits(model, self.validation) - optimal
        where = f"mean over {len(bits)} validation sequences, the same for every model and seed"
        metrics = {
            "bits_per_sequence": self.validation_metric(history),
            "optimal_bits_per_sequence": Metric(
                float(optimal.mean()),
                "bits per sequence",
                f"cost of the Krichevsky-Trofimov estimator, which is the posterior mean; {where}",
            ),
            "context_free_bits_per_sequence": Metric(
                float(context_free.mean()),
                "bits per sequence",
                f"cost of the same estimator with one count for all contexts; {where}",
            ),
            "bits_above_optimal": Metric(
                float(above.mean()), "bits per sequence", f"the model's cost minus the optimal one; {where}"
            ),
            "bits_above_optimal_error": Metric(
                float(above.std() / len(above) ** 0.5),
                "bits per sequence",
                f"standard error of the paired difference of costs over the {len(bits)} validation sequences",
            ),
        }
        traced = self.nearest_to_median(optimal)
        arrays = _answer(model, traced, "trace")
        arrays["optimal_trace"] = _half(self.task.optimal(traced.targets[..., 0].cpu())[0])
        arrays |= _trace(model, traced) if isinstance(model, NTM) else {}
        return Outcome(metrics, arrays)

    def nearest_to_median(self, costs: Tensor) -> Episodes:
        """Of the validation sequences, the one of median cost (the lower of two), as the only one of a batch."""
        episodes = [episode for batch in self.validation for episode in batch.split(1)]
        return episodes[int(costs.argsort()[(len(costs) - 1) // 2])]


def _bits_of(probabilities: Tensor, bits: Tensor) -> Tensor:
    """Cost in bits of each outcome under the probability of a 1."""
    return -torch.where(bits > 0.5, probabilities, 1 - probabilities).log2()


def _batched(drawn: Sequence[Episodes]) -> list[Episodes]:
    """Episodes of many sizes as few batches, neighbours together so that there is little padding."""
    batches: list[Episodes] = []
    waiting: list[Episodes] = []
    for episodes in (part for whole in drawn for part in whole.split(_AT_ONCE)):
        if sum(len(e.inputs) for e in [*waiting, episodes]) > _AT_ONCE:
            batches.append(padded(waiting))
            waiting = []
        waiting.append(episodes)
    return [*batches, padded(waiting)]


def _name(size: Size) -> str:
    """(20, 10) as "20x10"."""
    return "x".join(map(str, size))


def _at(size: Size) -> str:
    return f"_at_{_name(size)}" if size else ""


# --- what is kept of a trained model ---------------------------------------------------------------------


@torch.no_grad()
def _answer(model: nn.Module, episode: Episodes, name: str) -> dict[str, np.ndarray]:
    """Target and output probabilities of one episode's answer, in 255ths [answered steps, n_outputs]."""
    answer = episode.scored[0]
    probabilities = torch.sigmoid(model(episode.inputs)[0][0, answer])
    return {
        f"targets_{name}": _as_bytes(episode.targets[0, answer]),
        f"outputs_{name}": _as_bytes(probabilities),
    }


@torch.no_grad()
def _trace(model: NTM, episode: Episodes) -> dict[str, np.ndarray]:
    """One episode from the inside; T steps, R read and W write heads, D wide, N slots.

    trace_inputs [T, n_inputs], trace_outputs [T, n_outputs] (0 where no answer is due), trace_read_weights [T, R, N],
    trace_write_weights [T, W, N], trace_add [T, W, D], trace_reads [T, R, D], and trace_memory [N, D] as it is before
    the first answer.
    """
    logits, _, trace = model(episode.inputs, trace=True)
    scored = episode.scored[0]
    n_read = model.n_read_heads
    before = max(int(scored.int().argmax()) - 1, 0)
    return {
        "trace_inputs": _half(episode.inputs[0]),
        "trace_outputs": _half(torch.sigmoid(logits[0]) * scored.unsqueeze(-1)),
        "trace_read_weights": _half(trace.weights[0, :, :n_read]),
        "trace_write_weights": _half(trace.weights[0, :, n_read:]),
        "trace_add": _half(trace.add[0]),
        "trace_reads": _half(trace.reads[0].unflatten(-1, (n_read, model.slot_dim))),
        "trace_memory": _half(trace.memory[0, before]),
    }


def _as_bytes(values: Tensor) -> np.ndarray:
    return (values * 255).round().to(torch.uint8).cpu().numpy()


def _half(values: Tensor) -> np.ndarray:
    return values.half().cpu().numpy()
