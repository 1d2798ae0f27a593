"""Parameters of a notebook: validated in the cell after them, because papermill only warns of unknown names."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attn.reproduction.environment import device_for
from attn.reproduction.errors import UsageError, choose
from attn.reproduction.experiment import PROFILES, Chapter, Experiment

NAMES = ("profile", "task", "table", "device", "seeds")
# The first line of the cell that papermill injects.
_INJECTED = "# Parameters"
_MOST_SEEDS = 1000  # a slip of the finger is not a grid


@dataclass(frozen=True)
class NotebookParameters:
    """What a chapter's notebook was asked to do.

    Attributes:
        profile: one of `PROFILES`.
        experiments: what the task and table select.
        device: where to run.
        seeds: chosen seeds, or None for the profile's own.
    """

    profile: str
    experiments: tuple[Experiment, ...]
    device: torch.device
    seeds: tuple[int, ...] | None

    @property
    def live(self) -> bool:
        """Whether this is the default run, which trains afresh and touches no record."""
        return self.profile == "ci"


def assigned_names(source: str) -> list[str]:
    """Names that a cell of plain assignments binds."""
    names = []
    for node in ast.parse(source).body:
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def injected_names(cells: Sequence[str]) -> list[str]:
    """Names in the last cell that papermill injected, among the sources of the cells run so far."""
    injected = [source for source in cells if source.lstrip().startswith(_INJECTED)]
    return assigned_names(injected[-1]) if injected else []


def validate(chapter: Chapter, namespace: Mapping[str, Any]) -> NotebookParameters:
    """Check the parameters in a notebook's namespace (`globals()`).

    Raises:
        UsageError: one sentence, for an unknown parameter, profile, task, table, device or seed.
    """
    for name in injected_names(namespace.get("In", ())):
        choose("parameter", name, NAMES)
    values = {name: namespace.get(name) for name in NAMES}
    return from_values(chapter, **values)


def from_values(
    chapter: Chapter, *, profile: str, task: str | None = None, table: str | None = None, device: str = "auto",
    seeds: Any = None,
) -> NotebookParameters:  # fmt: skip
    """Check parameters given by name; seeds as `parse_seeds` takes them, None or "" for all or the profile's own."""
    choose("profile", profile, PROFILES)
    experiments = chapter.select(
        task=None if task in (None, "") else task, table=None if table in (None, "") else table
    )
    return NotebookParameters(profile, experiments, device_for(device), parse_seeds(seeds))


def parse_seeds(seeds: Any) -> tuple[int, ...] | None:
    """Seeds from one whole number, a list of them, or text as "0,2,4" or "0-4"; None for None and "".

    Raises:
        UsageError: for anything else.
    """
    if seeds is None or seeds == "":
        return None
    if isinstance(seeds, str):
        chosen = [number for part in seeds.split(",") for number in _span(part, seeds)]
    else:
        chosen = list(seeds) if isinstance(seeds, list | tuple) else [seeds]
    if not chosen or len(chosen) > _MOST_SEEDS or not all(type(seed) is int and seed >= 0 for seed in chosen):
        raise _bad_seeds(seeds)
    return tuple(dict.fromkeys(chosen))


def _span(part: str, seeds: str) -> range:
    first, dash, last = part.strip().partition("-")
    last = last if dash else first
    if not all(number.isascii() and number.isdigit() and len(number) < 10 for number in (first, last)):
        raise _bad_seeds(seeds)
    span = range(int(first), int(last) + 1)
    if not 0 < len(span) <= _MOST_SEEDS:
        raise _bad_seeds(seeds)
    return span


def _bad_seeds(value: Any) -> UsageError:
    return UsageError(
        f"seeds must be whole numbers of at least 0, as 3, '0,2,4' or '0-4', at most {_MOST_SEEDS} of them; "
        f"got {value!r}"
    )
