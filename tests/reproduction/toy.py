"""A chapter in files of its own, so that a test can edit its code, and records made up without training."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import attn
import attn.evaluation
import attn.experiments
from attn.reproduction import runner, scoreboard, sources, staleness
from attn.reproduction.experiment import Chapter, Experiment, config_dict
from attn.reproduction.facts import load_paper
from attn.reproduction.records import Record, load_records, record_path, write_record

FACTS = """\
id: toy2000
title: Fitting a Line
authors: [A. Person]
year: 2000
venue: nowhere
arxiv: null
bibtex_key: person2000line
tables:
- id: table1_sizes
  caption: Weights of the line.
  columns: [inputs, rate, weights, ratio, other, blank]
  rows:
  - {inputs: 3, rate: 0.1, weights: 4, ratio: 0.33, other: 9, blank: null}
  - {inputs: 5, rate: 0.1, weights: 7, ratio: 0.25, other: 1, blank: null}
  - {kind: quoted, inputs: 9, rate: 0.2, weights: 10, ratio: 0.1, other: 2, blank: null}
  checked: two sources
  source: a library
  notes: none
- id: table2_errors
  caption: Errors after training.
  columns: [model, error]
  rows:
  - {model: line, error: 0.5}
  - {model: flat, error: 0.9}
  - {model: curve, error: 0.1}
  checked: one source
  source: a library
  notes: none
- id: table3_lore
  caption: Errors that nobody looked up.
  columns: [model, error]
  rows:
  - {model: line, error: 0.5}
  checked: memory only
  source: null
  notes: unverified
recipe: {}
claims:
- {id: line_beats_flat, statement: A line fits better than a constant., table: table2_errors, how_to_check_small: fit both}
- {id: lines_agree, statement: Two lines fit alike., table: table2_errors, how_to_check_small: fit twice}
- {id: one_weight_each, statement: A line has a weight an input., table: table1_sizes, how_to_check_small: count}
- {id: lore, statement: Lines are known to fit., table: table3_lore, how_to_check_small: look it up}
- {id: curves_win, statement: Curves fit best., table: table2_errors, how_to_check_small: fit a curve}
exact: []
margins:
  same_line: {value: 0.1, unit: squared error, why: a tenth}
deviations:
- {id: size, place: section 1, paper: many points, ours: few points, switch: none}
"""

# Where a module of the toy lies below a folder that joins attn's own, and its text.
MODULES = {
    "attn.toy_tools": '"""Tools of the toy."""\n\nWIDTH = 1\n\n\ndef weight():\n    """A line."""\n    return WIDTH\n',
    "attn.toy_model": """\
from torch import nn

from attn.toy_tools import weight


def line(width):
    # one output
    return nn.Linear(width, weight())
""",
    "attn.evaluation.toy_score": """\
def squared_error(errors):
    return float(errors.square().mean())
""",
    "attn.experiments.toy": '''\
"""The toy chapter: fit a line to points."""

import os
import signal
from dataclasses import dataclass

import numpy as np
import torch

from attn.evaluation.toy_score import squared_error
from attn.reproduction.experiment import (
    Chapter, Claim, Control, Exact, Experiment, Measured, Metric, Outcome, Recomputed, TableView,
)
from attn.toy_model import line
from attn.training.config import TrainingConfig
from attn.training.loop import BatchLoss
from attn.training.seeding import generator_for, set_seed

SLOPE = 2.0
LOW, HIGH = -1.0, 1.0
COLOUR = "blue"


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """One fit."""

    training: TrainingConfig
    width: int = 3


class ToyWorkload:
    """Fits a line to points on a line; two points an update."""

    unit = "sequences"

    def __init__(self, config, seed, device):
        set_seed(seed)
        self.config, self.seed = config, seed
        self.model = line(config.width).to(device)

    def batch(self, step, part, n_parts):
        if os.environ.get("TOY_KILLED_AT") == str(step):
            os.kill(os.getpid(), signal.SIGKILL)
        points = torch.rand(self.config.training.batch_size, self.config.width, generator=generator_for(self.seed, step))
        return (points * (HIGH - LOW) + LOW)[part::n_parts]

    def loss(self, model, batch):
        errors = model(batch).squeeze(-1) - target(batch)
        return BatchLoss(errors.square().sum(), len(batch), len(batch))

    def evaluate(self, model):
        points = torch.linspace(LOW, HIGH, 5)[:, None].expand(-1, self.config.width)
        return {"error": squared_error(model(points).squeeze(-1) - target(points))}

    def outcome(self, model, history):
        metric = Metric(history[-1]["error"], "squared error", "mean over five points")
        return Outcome({"error": metric}, self.kept(model))

    def kept(self, model):
        return {"weights": model.weight.detach().numpy().astype(np.float16)}

    def data_checksums(self):
        return {}


def target(points):
    """What is fitted."""
    return SLOPE * points.sum(-1)


def build(config, seed, device):
    """The toy's workload."""
    return ToyWorkload(config, seed, device)


def config(**changes):
    settings = dict(max_steps=12, batch_size=2, optimizer="adam", lr=0.05, eval_every=3, checkpoint_every=0.0)
    return ToyConfig(training=TrainingConfig(**(settings | changes)))


def experiment(name, **changes):
    return Experiment(
        id=f"fit/{name}", task="fit", label=name, tables=("table2_errors",),
        configs={"ci": config(max_steps=5), "cpu": config(**changes)}, seeds={"ci": 1, "cpu": 3}, build=build,
        share=lambda config: f"{config.training.max_steps} updates",
    )


def draw(records):
    """A figure."""
    return COLOUR


def gap(runs):
    return runs["fit/flat"].metric("error") - runs["fit/line"].metric("error")


CONTROL = Control(statement="The line learns", difference=lambda runs: 1 - runs["fit/line"].metric("error"))
CHAPTER = Chapter(
    paper="toy2000", number=9, short_title="Line", notebook="09_toy",
    experiments=(experiment("line"), experiment("flat", lr=0.001)),
    tables=(
        TableView(
            id="table1_sizes", label=lambda row: f"{row['inputs']} inputs", label_columns=("inputs",), settings=("rate",),
            cells={
                "weights": Exact(lambda row: row["inputs"] + 1, note=lambda row: "counted"),
                "ratio": Recomputed(lambda row: 1 / row["inputs"]),
                "other": Exact(lambda row: 9 if row["inputs"] == 3 else None, fitted=True),
            },
        ),
        TableView(
            id="table2_errors", label=lambda row: row["model"], label_columns=("model",),
            cells={"error": Measured(
                experiment=lambda row: None if row["model"] == "curve" else f"fit/{row['model']}",
                value=lambda row, record: record.metric("error"), unit="squared error",
            )},
            command=lambda row: f"attn run toy2000 --experiment fit/{row['model']}",
        ),
    ),
    claims=(
        Claim(
            id="line_beats_flat", fact="line_beats_flat", kind="order", measure="Error: flat minus line",
            unit="squared error", experiments=("fit/line", "fit/flat"), difference=gap, control=CONTROL,
        ),
        Claim(
            id="one_weight_each", fact="one_weight_each", kind="arithmetic", measure="Weights of the first row",
            holds=lambda paper: paper.table("table1_sizes").rows[0]["weights"] == 4,
        ),
    ),
)
''',
}


class Toy:
    """The toy chapter below `folder`, with its results and unfinished runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results, self.runs = folder, folder / "results", folder / "runs"
        for module, text in MODULES.items():
            path = self.file(module)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (folder / "toy2000.yaml").write_text(FACTS)
        self.paper = load_paper(folder / "toy2000.yaml")

    def file(self, module: str) -> Path:
        """Where a module of the toy lies."""
        return self.folder.joinpath(*module.split(".")).with_suffix(".py")

    def join(self) -> None:
        """Let attn's packages find the toy's modules."""
        for package in PACKAGES:
            package.__path__ = [*package.__path__, str(self.folder.joinpath(*package.__name__.split(".")))]

    def forget(self) -> None:
        """Import the toy's modules anew when they are next asked for."""
        for name in [n for n in sys.modules if ".toy" in n and n.startswith("attn.")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        for module in (sources, runner):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()

    def edit(self, module: str, old: str, new: str) -> None:
        """Replace the one place where `old` stands in a module's text."""
        path = self.file(module)
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {module}"
        path.write_text(text.replace(old, new))
        self.forget()

    @property
    def module(self) -> ModuleType:
        return importlib.import_module("attn.experiments.toy")

    @property
    def chapter(self) -> Chapter:
        return self.module.CHAPTER

    def experiment(self, name: str = "line") -> Experiment:
        return self.chapter.experiment(f"fit/{name}")

    def job(self, seed: int = 0, name: str = "line") -> runner.Job:
        return runner.Job(self.chapter, self.experiment(name), "cpu", seed)

    def run(self, seed: int = 0, name: str = "line", **options: Any) -> Record | None:
        """Run one job here, silently."""
        options = {
            "results": self.results,
            "runs": self.runs,
            "device": torch.device("cpu"),
            "silent": True,
        } | options
        return runner.run(self.job(seed, name), **options)

    def freshness(self, name: str = "line") -> staleness.Freshness:
        """Of the record of seed 0, as it is read from its file."""
        path = record_path(self.results, "toy2000", f"fit/{name}", "cpu", 0)
        (record,) = [r for r in load_records(self.results)[0] if r.path == path]
        return staleness.freshness(record, self.experiment(name))

    def made_up(
        self, name: str = "line", seed: int = 0, *, error: float = 0.5, artifact=None, **changes: Any
    ) -> Record:
        """Write a record of today's code that no run has made; `changes` replace whole parts of it."""
        experiment = self.experiment(name)
        data = record_data("toy2000", experiment.id, seed, {"error": error}, **changes)
        if "config" not in changes:
            data["config"] = config_dict(experiment.configs["cpu"])
        if "code" not in changes:
            data["code"]["sources"] = sources.source_hashes(experiment.build)
        return write_record(self.results, data, artifact or {})

    def use(self, monkeypatch) -> None:
        """Make the toy the book's only chapter, with its own facts, results and unfinished runs."""
        monkeypatch.setattr(scoreboard, "load_papers", lambda: {"toy2000": self.paper})
        monkeypatch.setattr(attn.experiments, "chapters", lambda: (self.chapter,))
        monkeypatch.setenv("ATTN_RESULTS", str(self.results))
        monkeypatch.setenv("ATTN_RUNS", str(self.runs))


PACKAGES = (attn, attn.evaluation, attn.experiments)


@contextmanager
def toy_chapter(folder: Path) -> Iterator[Toy]:
    """The toy below `folder`, importable until the end."""
    paths = [package.__path__ for package in PACKAGES]
    toy = Toy(folder)
    toy.join()
    toy.forget()
    try:
        yield toy
    finally:
        toy.forget()
        for package, path in zip(PACKAGES, paths, strict=True):
            package.__path__ = path
            for name in [name for name in vars(package) if name.startswith("toy")]:
                delattr(package, name)


def record_data(
    paper: str, experiment: str, seed: int, values: dict[str, float], /, *, history=None, **changes: Any
) -> dict[str, Any]:
    """A record's content that fits the schema, without its artifact; `values` are those of its metrics."""
    history = history or [{"step": 0, "seen": 0, "error": 1.0}, {"step": 12, "seen": 24, "error": 0.5}]
    data = {
        "schema": 1,
        "paper": paper,
        "experiment": experiment,
        "profile": "cpu",
        "seed": seed,
        "config": {},
        "code": {"commit": "a" * 40, "clean": True, "sources": {"attn.made_up": "0" * 64}},
        "environment": {
            "python": "3.11.2", "torch": "2.11.0", "cuda": None, "packages": {"numpy": "2.0.0"}, "device": "cpu",
            "device_count": 1, "dtype": "fp32", "threads": 1,
        },
        "data": {},
        "run": {
            "finished": "2020-02-29", "seconds": 60.0, "steps": 12, "seen": 24, "unit": "sequences",
            "units_per_second": 0.4, "peak_memory_bytes": 1000, "parameters": 4, "share": "12 updates",
        },
        "replay": {"losses": [1.0, 0.9, 0.8]},
        "history": history,
        "metrics": {
            name: {"value": value, "unit": "squared error", "definition": "mean over five points"}
            for name, value in values.items()
        },
    }  # fmt: skip
    return data | changes


def killed_run(folder: str) -> None:
    """Start the run of seed 0; the environment says at which update it is killed."""
    torch.set_num_threads(1)
    toy = Toy(Path(folder))
    toy.join()
    toy.run()


if __name__ == "__main__":
    killed_run(sys.argv[1])
