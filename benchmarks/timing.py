"""Time alternatives side by side: the machinery of every benchmark here.

A row is one comparison. Its variants are called in turn, round after round, so that a disturbance of the machine
hits all of them; the time of a variant is the median over the rounds, and the ratio is another variant's time over
ours, so that above 1 ours is faster. A large matrix product is timed before and after each row: where it is slower
than elsewhere in the run, something else used the machine and the row is marked, after it was tried again.

Each row, with each state of the heap, has a process of its own: glibc's settings cannot be taken back, and a kept heap
holds whatever the rows before it needed. `default` is what a user of plain `python` gets, `kept` is nearer to what a
GPU's caching allocator does.

The result, for a file, is described by attn/reproduction/speed.schema.json; the page "Speed" shows the files under
results/speed/. It names devices and versions, and no host, user or path.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from attn.reproduction.environment import commit, describe, device_for
from attn.reproduction.paths import write_atomically
from attn.reproduction.speed import HEAPS, memory_ratio, memory_reached, reached
from attn.training.heap import keep_heap
from benchmarks import again

SCHEMA_VERSION = 1
PROBE_SIZE = 512  # rows and columns of the probe's matrices
PROBE_REPEATS = 9
DISTURBED = 0.8  # a probe below this share of the run's best marks its row
WARM_UP_CALLS = 2
SLOW_SECONDS = 1.0  # a call that takes longer needs one call to warm up
LEAST_ROUNDS = 3  # of a row, however slow
ROUND_SECONDS = 0.05  # a variant is called so often in a round that it takes at least this long


@dataclass(frozen=True)
class Goal:
    """A figure to reach: `against` takes at least `ratio` times as long, or as much, as the row's first variant.

    Attributes:
        against: name of the other variant.
        ratio: on a GPU, with the heap kept, and with the default heap unless `default_heap` is given.
        default_heap: the ratio with the default heap, where that is another one.
    """

    against: str
    ratio: float
    default_heap: float | None = None

    def on(self, heap: str) -> dict[str, Any]:
        """As a result has it: the other variant, and the ratio with this heap."""
        other = heap == "default" and self.default_heap is not None
        return {"against": self.against, "ratio": self.default_heap if other else self.ratio}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        name: of the row, such as "batch 16".
        units: units of work in one call, for the rate.
        build: from a device to the variants by name, ours first; each is called without arguments.
        goal: the figure to reach, on every device and with either heap; None where nothing was set.
        peak: from a call to the most bytes that it holds at a time; None where memory is not of interest.
        memory_goal: the figure to reach for these bytes; None where nothing was set.
        optional: variants of packages that may be missing; a figure against a missing one is not set then.
        few: most rounds of those variants that take far longer than the others, by name.
    """

    name: str
    units: float
    build: Callable[[torch.device], Mapping[str, Callable[[], Any]]]
    goal: Goal | None = None
    peak: Callable[[Callable[[], Any]], int] | None = None
    memory_goal: Goal | None = None
    optional: Sequence[str] = ()
    few: Mapping[str, int] = field(default_factory=dict)


def main(rows: Sequence[Row], *, module: str, unit: str, arguments: Sequence[str] | None = None) -> None:
    """Run a benchmark as its command line asks, print the table and write it as JSON.

    Args:
        rows: what to compare.
        module: name by which `python -m` finds the benchmark.
        unit: what `Row.units` counts, such as "sequences".
        arguments: the command line, or None for the process's own.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--heap", choices=(*HEAPS, "both"), default="both", help="state of the heap (both)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--row", metavar="NAME", help="this row alone, once, in this process; needs a --heap")
    parser.add_argument("--rounds", type=_count, default=15, help="rounds of a row (15)")
    parser.add_argument(
        "--limit", type=float, default=60.0, metavar="SECONDS",
        help=f"no further round of a row after so long, but {LEAST_ROUNDS} at least (60)",
    )  # fmt: skip
    parser.add_argument("--tries", type=_count, default=3, help="how often to measure a disturbed row (3)")
    parser.add_argument("--threads", type=_count, default=1, help="CPU threads (1)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="where to run (cpu)")
    parser.add_argument(
        "--again", action="store_true", help="only what the result in --json lacks or holds as disturbed"
    )
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="file for the result, such as results/speed/NAME/cpu.json"
    )
    options = parser.parse_args(arguments)
    names = ", ".join(row.name for row in rows)
    if options.row is not None:
        named = [row for row in rows if row.name == options.row]
        if not named or options.heap == "both":
            parser.error(
                f"--row {options.row!r} with --heap {options.heap} is not valid: "
                f"rows are {names}; heaps {', '.join(HEAPS)}"
            )
        result = _here(named[0], options.heap, options)
    else:
        chosen = [row for row in rows if options.only in row.name]
        if not chosen:
            parser.error(f"--only {options.only!r} fits no row; the rows are {names}")
        result = _chosen(module, chosen, [row.name for row in rows], options)
        if result is None:
            print("Nothing to measure: every row is there, and none was disturbed.")
            return
    print(table({**result, "unit": unit}))
    if options.json:
        head = {"schema": SCHEMA_VERSION, "benchmark": module.rpartition(".")[2], "unit": unit}
        content = json.dumps({**head, **result}, indent=1, allow_nan=False) + "\n"
        write_atomically(options.json, content.encode())


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not valid: it must be at least 1")
    return value


def _chosen(
    module: str, rows: Sequence[Row], names: Sequence[str], options: argparse.Namespace
) -> dict[str, Any] | None:
    """The results of the chosen rows or, where only some are measured again, of all; None if there are none of these."""
    heaps = HEAPS if options.heap == "both" else (options.heap,)
    if not options.again:
        return _all(module, dict.fromkeys(heaps, rows), options)
    torch.set_num_threads(options.threads)
    stored = again.read(options.json, describe(device_for(options.device), dtype="float32", device_count=1))
    wanted = again.wanted(stored, rows, heaps)
    if not any(wanted.values()):
        return None
    return again.merged(stored, _all(module, wanted, options), names)


def _all(module: str, wanted: Mapping[str, Sequence[Row]], options: argparse.Namespace) -> dict[str, Any]:
    """The results of all rows, by heap, as one."""
    results = []
    for heap, rows in wanted.items():
        best, measured = 0.0, []
        for row in rows:
            result, best = _undisturbed(module, row, heap, best, options)
            measured.append(result)
        for found in (found for result in measured for found in result["rows"]):  # the best is known only now
            found["disturbed"] = _is_disturbed(found["probe_gflops"], best)
        results += measured
    return {**results[0], "rows": [found for result in results for found in result["rows"]]}


def _undisturbed(
    module: str, row: Row, heap: str, best: float, options: argparse.Namespace
) -> tuple[dict[str, Any], float]:
    """A row's result, measured again while it is disturbed and tries are left, and the best probe up to here."""
    for left in reversed(range(options.tries)):
        result = _in_own_process(module, row, heap, options)
        speeds = [
            speed for found in result["rows"] for speed in found["probe_gflops"]
        ]  # none without this heap
        best = max([best, *speeds])
        if not speeds or not _is_disturbed(speeds, best) or not left:
            break
    return result, best


def _is_disturbed(speeds: Sequence[float], best: float) -> bool:
    return min(speeds) < DISTURBED * best


def _in_own_process(module: str, row: Row, heap: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        passed_on = {name: getattr(options, name) for name in ("rounds", "limit", "threads", "device")}
        passed_on |= {"row": row.name, "heap": heap, "json": path}
        command = [sys.executable, "-m", module]
        command += [word for name, value in passed_on.items() for word in (f"--{name}", str(value))]
        status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        if status:
            raise SystemExit(
                f"Row {row.name!r} with the heap {heap!r} ended with status {status}"
                f"{', killed, as where memory runs out' if status == -signal.SIGKILL else ''}; --only can leave it out."
            )
        result = json.loads(path.read_text(encoding="utf-8"))
    return {name: result[name] for name in ("finished", "environment", "code", "rows")}


def _here(row: Row, heap: str, options: argparse.Namespace) -> dict[str, Any]:
    """The result of one row, measured once in this process."""
    torch.set_num_threads(options.threads)
    device = device_for(options.device)
    measured = []
    if heap == "default" or keep_heap():
        found = measure(row, device, options.rounds, heap, limit=options.limit)
        speeds = found["probe_gflops"]
        measured.append({"heap": heap, **found, "disturbed": _is_disturbed(speeds, max(speeds))})
    else:
        print("The heap cannot be kept here (it takes Linux with glibc): no such rows.", file=sys.stderr)
    return {
        "finished": date.today().isoformat(),
        "environment": describe(device, dtype="float32", device_count=1),
        "code": commit(),
        "rows": measured,
    }


def measure(
    row: Row, device: torch.device, rounds: int, heap: str = "kept", *, limit: float = math.inf
) -> dict[str, Any]:
    """Times of a row's variants, and what they hold at most where the row asks for it.

    Args:
        row: what to compare.
        device: where.
        rounds: at most.
        heap: its state, which decides the figures to reach.
        limit: seconds after which no further round begins, once there are LEAST_ROUNDS.

    Returns:
        The row's `name`, the number of `rounds` and `goal` with this heap; `probe_gflops` before and after; for each
        variant its `name`, the `seconds` of one call (median) with their `quartiles`, the `rate` in units a second, and
        the `ratio` of its seconds to ours, and its own `rounds` where they are fewer. With `peak`, also each variant's
        `peak_bytes` and the row's `memory_goal`.

    Raises:
        ValueError: if the goal, or a variant of few rounds, is not one of the other variants.
    """
    variants = row.build(device)
    row = _without_missing(row, variants)
    _check_names(row, [*variants][1:])
    calls = {name: _calls_a_round(call, device) for name, call in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    before, start, done = probe(device), time.perf_counter(), 0
    while done < rounds and (done < LEAST_ROUNDS or time.perf_counter() - start < limit):
        for name, call in variants.items():
            if done < row.few.get(name, rounds):
                seconds[name].append(_seconds(call, calls[name], device))
        done += 1
    found = {
        "name": row.name,
        "rounds": done,
        "goal": row.goal and row.goal.on(heap),
        "probe_gflops": [before, probe(device)],
    }
    ours = statistics.median(next(iter(seconds.values())))
    found["variants"] = [_summary(name, values, row, ours, done) for name, values in seconds.items()]
    if row.peak is not None:
        found["memory_goal"] = row.memory_goal and row.memory_goal.on(heap)
        for variant in found["variants"]:
            variant["peak_bytes"] = row.peak(variants[variant["name"]])
    return found


def _without_missing(row: Row, variants: Mapping[str, Any]) -> Row:
    """The row without what it says of variants of packages that are not here."""
    missing = set(row.optional) - variants.keys()
    goals = {
        key: None if goal and goal.against in missing else goal
        for key, goal in (("goal", row.goal), ("memory_goal", row.memory_goal))
    }
    return replace(row, **goals)


def _check_names(row: Row, others: Sequence[str]) -> None:
    for goal in (row.goal, row.memory_goal):
        if goal and goal.against not in others:
            raise ValueError(
                f"goal of row {row.name!r} is against {goal.against!r}; valid: {', '.join(others)}"
            )
    for name in row.few:
        if name not in others:
            raise ValueError(f"few rounds of row {row.name!r} are for {name!r}; valid: {', '.join(others)}")


def _summary(name: str, seconds: Sequence[float], row: Row, ours: float, rounds: int) -> dict[str, Any]:
    """What a result says of a variant, given the median of the first one and the rounds of the row."""
    median = statistics.median(seconds)
    low, _, high = (
        statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [median] * 3
    )
    found = {
        "name": name,
        "seconds": median,
        "quartiles": [low, high],
        "rate": row.units / median,
        "ratio": median / ours,
    }
    return found | ({"rounds": len(seconds)} if len(seconds) < rounds else {})


def probe(device: torch.device) -> float:
    """Speed of a large matrix product now, in GFLOP/s."""
    left, right = torch.rand(2, PROBE_SIZE, PROBE_SIZE, device=device)
    _seconds(lambda: left @ right, 1, device)
    seconds = [_seconds(lambda: left @ right, 1, device) for _ in range(PROBE_REPEATS)]
    return 2 * PROBE_SIZE**3 / statistics.median(seconds) / 1e9


def _calls_a_round(call: Callable[[], Any], device: torch.device) -> int:
    seconds = _seconds(call, 1, device)
    if seconds < SLOW_SECONDS:
        for _ in range(WARM_UP_CALLS - 1):
            call()
        seconds = _seconds(call, 1, device)
    return max(1, round(ROUND_SECONDS / seconds))


def _seconds(call: Callable[[], Any], calls: int, device: torch.device) -> float:
    """Seconds of one call, mean over `calls`."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    _wait(device)
    return (time.perf_counter() - start) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory_lines(row: Mapping[str, Any]) -> list[str]:
    """What the variants of a row hold at most, a line, with what became of its figure; none if not measured."""
    first, *others = row["variants"]
    if memory_ratio(row, first) is None:
        return []
    said = [
        f"{variant['name']} {memory_ratio(row, variant):.2f} times as much"
        f"{_VERDICTS[memory_reached(row, variant)].format(row['memory_goal'])}"
        for variant in others
    ]
    return [
        f"{'':8} memory: {first['name']} {first['peak_bytes'] / 2**20:.1f} MiB at most, {', '.join(said)}"
    ]


_VERDICTS = {None: "", True: "  reaches {0[ratio]:g}", False: "  below {0[ratio]:g}"}


def table(result: Mapping[str, Any]) -> str:
    """The result as text."""
    environment = result["environment"]
    lines = [
        f"{environment['device']}, {environment['threads']} thread(s), torch {environment['torch']}; "
        "ratio: time of the variant / time of the first",
        f"{'heap':8} {'row':22} {'variant':32} {'ms':>9} {'quartiles':>19} {result['unit'] + '/s':>13} "
        f"{'ratio':>6}  probe GFLOP/s",
    ]
    for row in result["rows"]:
        mark = "  disturbed: measure again" if row["disturbed"] else ""
        place = f"{row['heap']:8} {row['name']:22}"
        for variant in row["variants"]:
            low, high = (f"{1e3 * value:.2f}" for value in variant["quartiles"])
            lines.append(
                f"{place} {variant['name']:32} {1e3 * variant['seconds']:9.2f} {low + ' to ' + high:>19} "
                f"{variant['rate']:13.1f} {variant['ratio']:6.2f}  "
                f"{row['probe_gflops'][0]:.0f}, {row['probe_gflops'][1]:.0f}"
                f"{_VERDICTS[reached(row, variant)].format(row['goal'])}{mark}"
            )
            place, mark = " " * len(place), ""
        lines += _memory_lines(row)
    return "\n".join(lines)
