"""Does a record still describe today's code? Computed when asked, never stored with a number.

A record is fresh if its config equals today's and the hashes of all code its run depends on (model, data, training,
evaluation, and what the builder reaches in the experiments module; see `sources`) are unchanged. Otherwise it is stale,
unless a replay of its first updates on the CPU still gives the losses it stored: then it is revalidated.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attn.reproduction.experiment import Experiment, config_dict
from attn.reproduction.paths import write_atomically
from attn.reproduction.records import Record
from attn.reproduction.sources import EVALUATION, source_hashes

REPLAY_TOLERANCE = (
    1e-5  # relative; other CPUs differ in the last bits of float32, a changed model in far more
)


FRESH, REVALIDATED, STALE = STATES = ("fresh", "revalidated", "stale")


@dataclass(frozen=True)
class Freshness:
    """Verdict on one record: "fresh", "revalidated" or "stale", and why it is not fresh."""

    state: str
    why: str | None = None
    replayable: bool = False

    @property
    def stale(self) -> bool:
        """Whether the number may no longer be what today's code gives."""
        return self.state == STALE


def least(states: Iterable[str]) -> str | None:
    """Of several records' states the one that says least for what rests on them; None of no record."""
    return max(states, key=STATES.index, default=None)


def _changed_config(recorded: Mapping[str, Any], today: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Fields whose recorded value differs today; a field added since is no change (a replay judges it)."""
    changed = []
    for name, value in recorded.items():
        now = today.get(name, "(gone)")
        if isinstance(value, dict) and isinstance(now, dict):
            changed += _changed_config(value, now, f"{prefix}{name}.")
        elif value != now:
            changed.append(prefix + name)
    return changed


def _same_keys(recorded: Any, today: Any) -> bool:
    if isinstance(recorded, dict) and isinstance(today, dict):
        return recorded.keys() == today.keys() and all(_same_keys(recorded[k], today[k]) for k in recorded)
    return True


def _validity_path(record: Record) -> Path:
    return record.path.with_suffix(".valid.json")


def _state_hash(sources: Mapping[str, str], config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([sources, config], sort_keys=True).encode()).hexdigest()


def _revalidated(record: Record, state_hash: str) -> bool:
    try:
        stored = json.loads(_validity_path(record).read_text("utf-8"))
        return stored["state"] == state_hash and stored["record"] == _record_hash(record)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _record_hash(record: Record) -> str:
    return hashlib.sha256(record.path.read_bytes()).hexdigest()


def freshness(record: Record, experiment: Experiment | None) -> Freshness:
    """Judge one record against today's code.

    Args:
        record: the record.
        experiment: what it is a run of, or None if the chapter no longer has it.
    """
    _, _, profile, seed = record.key
    if experiment is None or profile not in experiment.configs:
        return Freshness("stale", "the book no longer has this experiment at this profile")
    today = config_dict(experiment.configs[profile])
    changed = _changed_config(record.data["config"], today)
    if changed:
        return Freshness("stale", f"its config differs today in {', '.join(changed)}")
    sources = source_hashes(experiment.build)
    recorded = record.data["code"]["sources"]
    differing = sorted(
        name for name in sources.keys() | recorded.keys() if sources.get(name) != recorded.get(name)
    )
    if not differing and _same_keys(record.data["config"], today):
        return Freshness("fresh")
    why = f"changed since: {', '.join(differing) or 'fields added to the config'}"
    on_gpu = record.data["environment"]["cuda"] is not None and record.data["environment"]["device"] != "cpu"
    final = [
        name
        for name in differing
        if name.startswith("attn.evaluation")
        or name.endswith(EVALUATION)
        or (on_gpu and name.startswith("attn.kernels"))
    ]
    if final:
        return Freshness("stale", f"{why} (a replay of losses cannot speak for {', '.join(final)})")
    if _revalidated(record, _state_hash(sources, today)):
        return Freshness("revalidated", why)
    return Freshness("stale", why, replayable=bool(record.data["replay"]["losses"]))


def revalidate(record: Record, experiment: Experiment, replay: Callable[..., list[float]]) -> Freshness:
    """Replay a stale record's first updates and, if the losses agree, note so beside the record.

    Args:
        record: the record.
        experiment: what it is a run of.
        replay: (experiment, profile, seed, steps, processes=count) -> losses, as `runner.replay`.

    Returns:
        The record's freshness afterwards.
    """
    now = freshness(record, experiment)
    if not now.replayable:
        return now
    _, _, profile, seed = record.key
    stored = record.data["replay"]["losses"]
    processes = record.data["environment"]["device_count"]
    losses = replay(experiment, profile, seed, len(stored), processes=processes)
    agree = len(losses) == len(stored) and all(
        math.isclose(a, b, rel_tol=REPLAY_TOLERANCE) for a, b in zip(losses, stored, strict=True)
    )
    if not agree:
        return Freshness("stale", f"{now.why}; a replay gives losses {losses} where the record has {stored}")
    state = _state_hash(source_hashes(experiment.build), config_dict(experiment.configs[profile]))
    content = {"record": _record_hash(record), "state": state, "losses": losses}
    write_atomically(_validity_path(record), (json.dumps(content, indent=1) + "\n").encode())
    return freshness(record, experiment)
