"""Made-up runs of the chapter on adaptive spans: tiny models, and records without training."""

from pathlib import Path

import numpy as np
import torch

from attn.data.language_text import TextConfig
from attn.experiments.adaptive_span import CHAPTER
from attn.experiments.adaptive_span.copies import CopiesConfig, build_copies
from attn.experiments.adaptive_span.runs import PAPER as PAPER_ID
from attn.experiments.adaptive_span.workloads import SpanModelConfig, SpanTextConfig, build_text
from attn.reproduction.experiment import config_dict
from attn.reproduction.records import Record
from attn.training.config import TrainingConfig
from tests.reproduction.toy import record_data

CPU = torch.device("cpu")
TRAINING = TrainingConfig(
    max_steps=2, batch_size=32, optimizer="adagrad", lr=0.1, grad_clip_norm=0.03, grad_clip_per_parameter=True
)


def tiny(span="adaptive", *, copies=False, **changes):
    """A model of a few thousand weights on the generated text; `changes` replace fields of the config."""
    model = {"n_layers": 2, "d_model": 8, "n_heads": 2, "max_span": 24, "d_ff": 8, "ramp_size": 4}
    model |= changes.pop("model", {})
    settings = {
        "text": TextConfig(corpus="generated", train_size=700, valid_size=600, test_size=300),
        "model": SpanModelConfig(span=span, **model),
        "training": TRAINING,
        "n_rows": 2,
        "block": 16,
        "evaluation_rows": 2,
    }
    if copies:
        return CopiesConfig(stretch_length=4, distances=(1, 3), **(settings | changes))
    return SpanTextConfig(**(settings | changes))


def workload(span="adaptive", *, seed=0, **changes):
    config = tiny(span, **changes)
    return (build_copies if isinstance(config, CopiesConfig) else build_text)(config, seed, CPU)


def record(experiment, seed=0, *, folder=None, profile="cpu", spans=None, speed=1000.0, **metrics):
    """A record of an experiment at its own config; with a folder, spans and weights by distance stand beside it."""
    config = CHAPTER.experiment(experiment).config(profile)
    values = {
        "valid_bits": 2.0,
        "test_bits": 2.1,
        "valid_bits_as_trained": 2.05,
        "valid_bits_without_cache": 2.5,
    }
    values |= {"mean_span": 40.0, "longest_span": 60.0, "flops": 1e6} | metrics
    history = [
        {"step": step, "seen": 1000 * step, "bits_per_token": 3.0 - step / 10, "mean_span": 32.0 + step}
        for step in range(4)
    ]
    data = record_data(PAPER_ID, experiment, seed, values, history=history)
    data |= {"config": config_dict(config), "artifact": None}
    data["run"] = data["run"] | {"units_per_second": speed}
    path = Path(f"seed{seed}.json")
    if folder is not None:
        path = folder / f"{experiment.replace('/', '_')}_{seed}.json"
        np.savez(path.with_suffix(".npz"), **arrays(config.model, spans))
        data["artifact"] = {"file": path.with_suffix(".npz").name, "sha256": "0" * 64, "bytes": 1}
    return Record(path, data)


def arrays(model, spans=None):
    """Spans that rise with the layers unless given, and heads that look near and far."""
    shape = model.n_layers, model.n_heads
    if spans is None:
        spans = np.linspace(32, model.max_span, model.n_layers * model.n_heads).reshape(shape)
    reach = min(model.max_span, 64)
    scale = np.linspace(1, reach, model.n_layers * model.n_heads).reshape(*shape, 1)
    shares = np.exp(-np.arange(1, reach + 1) / scale)
    shares /= shares.sum(-1, keepdims=True)
    found = {
        "spans": np.asarray(spans, dtype=float),
        "attention_by_distance": shares.astype(np.float16),
        "attention_distance": shares @ np.arange(1, reach + 1),
    }
    if model.span == "dynamic":
        found["dynamic_tokens"] = np.arange(40, dtype=np.int32) % 5
        found["dynamic_spans"] = np.random.default_rng(0).uniform(32, 64, (*shape, 40)).astype(np.float32)
    return found
