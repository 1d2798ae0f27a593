"""What the Neural Turing Machine's chapter trains: which config stands for which row at which profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attn.data.episodic import CopyTask, Episodes
from attn.evaluation.episodic import bit_errors, episode_bits
from attn.ntm import NTM, LSTMBaseline
from attn.reproduction.errors import choose
from attn.reproduction.experiment import Experiment, Metric, Outcome
from attn.reproduction.facts import load_papers
from attn.training.config import TrainingConfig
from attn.training.episodic import EpisodicWorkload, by_length
from attn.training.seeding import set_seed

PAPER = "graves2014ntm"
MODELS = ("ntm_lstm", "ntm_ff", "lstm")
LABELS = {"ntm_lstm": "NTM, LSTM controller", "ntm_ff": "NTM, feed-forward controller", "lstm": "LSTM"}
TRACE_LENGTH = 20  # length of the episode whose weightings and add vectors are kept


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
    """One run: model, task, training and evaluation."""

    model: ModelConfig
    task: CopyTask  # draws the training episodes
    training: TrainingConfig
    same_length: bool = True  # one length for all episodes of an update
    validation_count: int = 8  # validation episodes of each training length
    test_lengths: tuple[int, ...] = (10, 20, 30, 50, 120)  # as the paper's figures 4 and 5
    test_count: int = 64  # test episodes of each of these lengths


def build_model(config: ModelConfig, *, n_inputs: int, n_outputs: int) -> nn.Module:
    """The model of a config, for a task's channels."""
    if config.kind == "lstm":
        return LSTMBaseline(
            n_inputs=n_inputs, n_outputs=n_outputs, size=config.size, n_layers=config.n_layers
        )
    return NTM(
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


class CopyWorkload(EpisodicWorkload):
    """Copying: validation on the training lengths, final test on longer ones."""

    def __init__(self, config: EpisodicConfig, seed: int, device: torch.device) -> None:
        set_seed(seed)
        self.config = config
        task = config.task
        model = build_model(config.model, n_inputs=task.n_inputs, n_outputs=task.n_outputs).to(device)
        lengths = range(task.min_length, task.max_length + 1)
        super().__init__(
            model=model, task=task, batch_size=config.training.batch_size, seed=seed, same_length=config.same_length,
            validation=by_length(self._at, lengths, config.validation_count, "copy", "validation"),
        )  # fmt: skip

    def _at(self, length: int) -> CopyTask:
        return CopyTask(n_bits=self.config.task.n_bits, min_length=length, max_length=length)

    def _test(self, length: int) -> Episodes:
        return by_length(self._at, [length], self.config.test_count, "copy", "test")[0].to(self.device)

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """Cost in and beyond the training lengths, and one traced episode."""
        model.eval()
        metrics = {"bits_per_sequence": self._validation_metric(history)}
        arrays: dict[str, np.ndarray] = {}
        for length in self.config.test_lengths:
            test = self._test(length)
            metrics |= self._test_metrics(model, test, length)
            arrays |= _answer(model, test, length)
        if isinstance(model, NTM):
            arrays |= _trace(model, self._test(TRACE_LENGTH))
        return Outcome(metrics, arrays)

    def _validation_metric(self, history: Sequence[Mapping[str, Any]]) -> Metric:
        task, count = self.config.task, self.config.validation_count
        return Metric(
            history[-1]["bits_per_sequence"],
            "bits per sequence",
            f"cross-entropy summed over all {task.n_outputs} outputs and the answer's steps, log base 2, mean over "
            f"{count} validation sequences of each length {task.min_length} to {task.max_length}, after the last update",
        )

    def _test_metrics(self, model: nn.Module, test: Episodes, length: int) -> dict[str, Metric]:
        count, n_bits = test.inputs.shape[0], self.config.task.n_bits
        per_bit = float(episode_bits(model, [test]).mean()) / (length * n_bits)
        wrong = float(bit_errors(model, [test]).double().mean())
        where = f"mean over {count} test sequences of length {length}, the same for every model and seed"
        return {
            f"bits_per_bit_at_{length}": Metric(
                per_bit,
                "bits per output bit",
                f"cross-entropy of the answer over its {length} x {n_bits} bits; {where}",
            ),
            f"bit_errors_at_{length}": Metric(
                wrong, "bits per sequence", f"outputs on the wrong side of one half in the answer; {where}"
            ),
        }


@torch.no_grad()
def _answer(model: nn.Module, test: Episodes, length: int) -> dict[str, np.ndarray]:
    """Target and output probabilities of the first test episode's answer, in 255ths [length, n_outputs]."""
    episode = Episodes(*(tensor[:1] for tensor in test))
    answer = episode.scored[0]
    probabilities = torch.sigmoid(model(episode.inputs)[0][0, answer])
    return {
        f"targets_{length}": _as_bytes(episode.targets[0, answer]),
        f"outputs_{length}": _as_bytes(probabilities),
    }


@torch.no_grad()
def _trace(model: NTM, test: Episodes) -> dict[str, np.ndarray]:
    """One episode from the inside: inputs, outputs, weightings [T, N], add vectors and reads [T, D]."""
    inputs = test.inputs[:1]
    logits, _, trace = model(inputs, trace=True)
    write_head = trace.weights.shape[2] // 2
    return {
        "trace_inputs": _as_bytes(inputs[0]),
        "trace_outputs": _as_bytes(torch.sigmoid(logits[0]) * test.scored[0, :, None]),
        "trace_read_weights": _half(trace.weights[0, :, 0]),
        "trace_write_weights": _half(trace.weights[0, :, write_head]),
        "trace_add": _half(trace.add[0, :, 0]),
        "trace_reads": _half(trace.reads[0, :, : model.slot_dim]),
    }


def _as_bytes(values: Tensor) -> np.ndarray:
    return (values * 255).round().to(torch.uint8).cpu().numpy()


def _half(values: Tensor) -> np.ndarray:
    return values.half().cpu().numpy()


def build_copy(config: EpisodicConfig, seed: int, device: torch.device) -> CopyWorkload:
    """Workload of a copy run."""
    return CopyWorkload(config, seed, device)


# --- Configs ---------------------------------------------------------------------------------------------

_COPY_MODELS = {
    "ntm_lstm": ModelConfig(kind="ntm_lstm", size=100),
    "ntm_ff": ModelConfig(kind="ntm_ff", size=100),
    "lstm": ModelConfig(kind="lstm", size=256, n_layers=3),
}
_SEEDS = {"ci": 1, "cpu": 5, "gpu": 5, "paper": 5}


def _copy_config(kind: str, profile: str) -> EpisodicConfig:
    budget = load_papers()[PAPER].budgets["copy"][profile]
    batch_size = budget["batch_size"]
    max_steps = budget["sequences"] // batch_size
    training = TrainingConfig(
        max_steps=max_steps,
        final_steps=round(budget["final_share"] * max_steps),
        batch_size=batch_size,
        optimizer="rmsprop_graves",
        lr=budget["lr"][kind],
        momentum=0.9,
        grad_clip_value=10.0,
        eval_every=budget["evaluate_every"] // batch_size,
    )
    return EpisodicConfig(
        model=_COPY_MODELS[kind], task=CopyTask(max_length=budget["max_length"]), training=training,
        test_lengths=tuple(budget["test_lengths"]),
    )  # fmt: skip


def _share(config: EpisodicConfig) -> str:
    seen = config.training.max_steps * config.training.batch_size
    return f"{seen:,} sequences, {seen / 1_000_000:.0%} of the paper's million"


def copy_experiment(kind: str) -> Experiment:
    """The copy task for one of the three models."""
    profiles = load_papers()[PAPER].budgets["copy"]
    return Experiment(
        id=f"copy/{kind}",
        task="copy",
        label=f"Copy, {LABELS[kind]}",
        tables=("fig3_copy_curves",),
        configs={name: _copy_config(kind, name) for name, budget in profiles.items() if kind in budget["lr"]},
        seeds=_SEEDS,
        build=build_copy,
        share=_share,
    )


EXPERIMENTS = tuple(copy_experiment(kind) for kind in MODELS)
