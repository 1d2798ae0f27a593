"""Results of the benchmarks: results/speed/<benchmark>/<name>.json, one file for each device, and their tables.

`python -m benchmarks.<benchmark> --json <file>` writes such a file; the folder benchmarks/ says how it measures.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from attn.reproduction.errors import UsageError
from attn.reproduction.grid import BLANK, Cell, Grid, Html, below, plain
from attn.reproduction.number_text import rounded
from attn.reproduction.paths import repository_root
from attn.reproduction.records import SPEED, Skipped

HEAPS = ("default", "kept")
COLUMNS = ("Row", "Variant", "Default: ms", "Default: ratio", "Kept: ms", "Kept: ratio", "MiB")
HEAP_WORDS = (
    "Default: freed memory of a large tensor goes back to the system. Kept: it stays with the process."
)
DISTURBED = (
    "⚠ disturbed: something else used the machine. Such times are to be measured again, and no figure is "
    "judged by them."
)


@dataclass(frozen=True)
class Benchmark:
    """What a reader is told of a benchmark: a title, and what one call is and stands beside."""

    title: str
    text: str


# By the name of the module in benchmarks/, in the order of the page.
BENCHMARKS: Mapping[str, Benchmark] = {
    "attention": Benchmark(
        "Attention and the Transformer's layers",
        "One call is a forward and a backward pass at the base model's sizes, on as many sequences of the row's "
        "length as make 2048 tokens. The first variant is the book's. What a table has beside it are torch's own "
        "modules with the same weights, bare linear maps around torch's fused attention, and the book's plain version, "
        "which follows the equations and returns the attention weights. A table says which of them judges its rows.",
    ),
    "decoding": Benchmark(
        "Greedy and beam search",
        "One call translates 16 sentences with a small Transformer, up to the row's number of tokens. The "
        "variants are greedy search and a beam of 4, each with the keys and values of earlier tokens kept in a "
        "cache and computed again for every token. The ratio is to greedy search with the cache. Nothing is to "
        "be reached here.",
    ),
    "lsh": Benchmark(
        "LSH attention",
        "One call hashes the queries of one sequence with 4 heads of 64, attends in chunks of 64, and goes back. Beside "
        "the book's variants stand the public package reformer-pytorch, causal attention by torch's fused kernel, and "
        "the book's plain version. Before anything is timed, ours by public code's conventions and the package are seen "
        "to give equal outputs and gradients, the buckets being the same.",
    ),
    "reversible": Benchmark(
        "Reversible layers",
        "One call is a forward and a backward pass of blocks of attention and feed-forward, with activations computed "
        "again and with activations kept: the price of not remembering.",
    ),
    "model_types": Benchmark(
        "The five models of the Reformer's table of memory and time",
        "One call is a forward and a backward pass of a stack of attention and feed-forward: the Reformer first, beside "
        "it the models without one or more of its ideas. Full attention keeps its weights, as the paper's formulas take "
        "it to; hashing is the book's. Lengths are those of long models, which are mostly attention, layers those of "
        "wide and short ones. Memory is what a call holds beside parameters and the gradients of layers that are done. "
        "Nothing is to be reached here.",
    ),
    "swapping": Benchmark(
        "Parameters that wait in the memory of the CPU",
        "One call copies the parameters of a stack of reversible layers to the device, or as many gradients back; or it "
        "is a forward and a backward pass of this stack, with parameters fetched for each function and with all of them "
        "on the device. On a CPU there is one memory: copies are between two buffers in it, and a pass with swapping "
        "copies nothing. Nothing is to be reached here.",
    ),
    "adaptive_span": Benchmark(
        "Adaptive attention span",
        "One call is a forward and a backward pass of the sub-layer for a block of 256 tokens with a full cache, or the "
        "forward pass alone. Beside the learned spans stand all heads at the layer's longest span, at the limit, and "
        "torch's fused attention over a window.",
    ),
    "all_attention": Benchmark(
        "All-attention",
        "One call is a forward and a backward pass of attention over a context and persistent vectors, beside attention "
        "followed by a feed-forward layer with as many parameters, or the forward pass alone.",
    ),
    "product_keys": Benchmark(
        "Product-key memory",
        "One call is a forward and a backward pass, or a whole step with its update, of a memory layer. Beside it stand "
        "the public package product-key-memory, flat keys, and the feed-forward layer that a memory replaces. Rows "
        "over slots are the book's own steps and searches at growing sizes. One row is a forward pass of untrained "
        "language models with and without memories: there a token counts as a query, and each model carries the "
        "printed sizes that it stands for.",
    ),
    "ntm": Benchmark(
        "Neural Turing Machine",
        "One call is a whole training step on copying 10 vectors at the paper's sizes: forward, backward, clipping "
        "and update. The first variant is the book's; beside it stand the same machine with its loop over time "
        "left to autograd, and the machine written step by step, with batched operations and with the loops over "
        "the batch of widely read public code.",
    ),
}


class SpeedError(UsageError):
    """A benchmark's result that does not fit the schema, its place or itself."""


@dataclass(frozen=True)
class Speed:
    """One valid result: `data` as in speed.schema.json, `path` below results/ with forward slashes."""

    path: str
    data: Mapping[str, Any]


# --- reading ---------------------------------------------------------------------------------------------


@cache
def _validator():
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads((Path(__file__).parent / "speed.schema.json").read_text("utf-8")))


def check_speed(data: Any) -> None:
    """Raise SpeedError, naming place and fault, unless `data` fits the schema and agrees with itself."""
    error = next(iter(_validator().iter_errors(data)), None)
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "top level"
        raise SpeedError(f"{place}: {error.message[:200]}")
    rows = data["rows"]
    (row, times), *_ = Counter((row["heap"], row["name"]) for row in rows).most_common()
    if times > 1:
        raise SpeedError(f"rows: {row[1]!r} with the {row[0]} heap occurs {times} times")
    for i, row in enumerate(rows):
        _check_row(row, f"rows/{i}")


def _check_row(row: Mapping[str, Any], place: str) -> None:
    names = [variant["name"] for variant in row["variants"]]
    if len(set(names)) < len(names):
        raise SpeedError(f"{place}: a variant occurs twice in {', '.join(names)}")
    for goal in (row["goal"], row.get("memory_goal")):
        if goal and goal["against"] not in names[1:]:
            raise SpeedError(
                f"{place}: the goal is against {goal['against']!r}; valid: {', '.join(names[1:])}"
            )
    if len({"peak_bytes" in variant for variant in row["variants"]}) > 1:
        raise SpeedError(f"{place}: peak_bytes must be there for all variants or for none")
    ours = row["variants"][0]["seconds"]
    for variant in row["variants"]:
        low, high = variant["quartiles"]
        rounding = 1 + 1e-9  # quartiles are interpolated, the median may not be
        if not low / rounding <= variant["seconds"] <= high * rounding:
            raise SpeedError(f"{place}: the median of {variant['name']!r} is not between its quartiles")
        if not math.isclose(variant["ratio"], variant["seconds"] / ours, rel_tol=1e-6):
            raise SpeedError(f"{place}: the ratio of {variant['name']!r} is not that of its seconds")


def read_speed(path: Path, results: Path) -> Speed:
    """Read one result and check it and its place.

    Raises:
        SpeedError: naming what is wrong.
    """
    try:
        data = json.loads(path.read_text("utf-8"), parse_float=_finite, parse_constant=_finite)
    except (OSError, ValueError, RecursionError) as error:
        raise SpeedError(f"not readable as JSON ({error})".replace(str(results), "results")) from error
    check_speed(data)
    if data["benchmark"] not in BENCHMARKS:
        raise SpeedError(f"benchmark: {data['benchmark']!r} is unknown; valid: {', '.join(BENCHMARKS)}")
    if path.parent != results / SPEED / data["benchmark"]:
        raise SpeedError(f"belongs in {SPEED}/{data['benchmark']}/")
    return Speed(path.relative_to(results).as_posix(), data)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def load_speed(results: Path) -> tuple[list[Speed], list[Skipped]]:
    """All valid results in order of their path, and the files that were skipped with the reason."""
    found, skipped = [], []
    for path in sorted((results / SPEED).rglob("*.json")):
        try:
            found.append(read_speed(path, results))
        except SpeedError as error:
            skipped.append(Skipped(path, str(error)))
    return found, skipped


def command(benchmark: str, name: str = "cpu", *, device: str = "cpu", threads: int = 1) -> str:
    """The command that measures a benchmark and stores the result under a name."""
    options = " --device cuda" * (device != "cpu") + f" --threads {threads}" * (threads != 1)
    return f"python -m benchmarks.{benchmark}{options} --json results/{SPEED}/{benchmark}/{name}.json"


def reached(row: Mapping[str, Any], variant: Mapping[str, Any]) -> bool | None:
    """Whether a variant's ratio of times reaches the row's goal, at the two decimals that are shown.

    Returns:
        None where the goal is not against this variant, or the row was disturbed.
    """
    goal = row["goal"]
    if goal is None or goal["against"] != variant["name"] or row["disturbed"]:
        return None
    return round(variant["ratio"], 2) >= goal["ratio"]


def memory_ratio(row: Mapping[str, Any], variant: Mapping[str, Any]) -> float | None:
    """What a variant holds at most, as a multiple of what the row's first one holds; None if not measured."""
    first = row["variants"][0]
    return variant["peak_bytes"] / first["peak_bytes"] if "peak_bytes" in first else None


def memory_reached(row: Mapping[str, Any], variant: Mapping[str, Any]) -> bool | None:
    """Whether a variant's ratio of memory reaches the row's goal for it; None where that is not against it."""
    goal = row.get("memory_goal")
    if goal is None or goal["against"] != variant["name"]:
        return None
    return round(memory_ratio(row, variant), 2) >= goal["ratio"]


# --- tables ----------------------------------------------------------------------------------------------


def speed_table(result: Speed, *, root: str = "../") -> Html:
    """One result: a line for each row and variant, with time and ratio for each heap.

    Args:
        result: what to show.
        root: way from the page to the folder that holds `results/`.
    """
    today = todays_rows(result.data["benchmark"])
    rows = still_asked(result.data["rows"], today)
    grid = Grid(_caption(result.data, rows), COLUMNS)
    for name in dict.fromkeys(row["name"] for row in rows):
        by_heap = {row["heap"]: row for row in rows if row["name"] == name}
        variants = dict.fromkeys(v["name"] for row in by_heap.values() for v in row["variants"])
        for i, variant in enumerate(variants):
            found = {heap: _variant(by_heap.get(heap), variant) for heap in HEAPS}
            times = [cell for heap, one in found.items() for cell in _time(by_heap.get(heap), one)]
            held = _held({heap: _memory(by_heap[heap], one) for heap, one in found.items() if one})
            grid.add(
                [None if i else plain(name), _breakable(variant), *times, held], "" if i else "attn-first"
            )
    grid.notes = _notes(result, rows, changed_words(rows, today), root)
    return grid.render()


def speed_tables(found: Sequence[Speed], benchmark: str) -> Html:
    """The tables of a chapter's benchmark, one for each device; a note where it was not measured."""
    return joined(speed_table(result) for result in of_benchmark(found, benchmark))


def joined(tables: Iterable[Html]) -> Html:
    """Tables one below the other; a note where there is none."""
    tables = list(tables)
    if not tables:
        return Html('<p class="attn-note">Not measured yet.</p>', "Not measured yet.")
    return Html("".join(table.html for table in tables), "\n\n".join(table.text for table in tables))


def still_asked(rows: Sequence[Mapping[str, Any]], today: Sequence[Any] | None) -> list[dict[str, Any]]:
    """Stored rows without the figures that today's benchmark sets for none of its own, so that they judge nothing.

    Args:
        rows: as stored.
        today: rows of the code, each with `name`, `goal` and `memory_goal`; None if they are not known.
    """
    now = {row.name: row for row in today or ()}
    return [
        row
        | {
            key: None
            for key in ("goal", "memory_goal")
            if row["name"] in now and not getattr(now[row["name"]], key)
        }
        for row in rows
    ]


def _caption(data: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Cell:
    environment = data["environment"]
    device, threads = environment["device"], environment["threads"]
    cpu = f"{environment['cpu']}, {threads} thread{'' if threads == 1 else 's'}"
    name = cpu if device == "cpu" else device
    rest = f" (beside {cpu})" * (device != "cpu") + f", torch {environment['torch']}. "
    rest += "Milliseconds of a call, median [quartiles], and the ratio to the first variant"
    held = any(memory_ratio(row, row["variants"][0]) for row in rows)
    rest += "; mebibytes that a call holds at most, and their ratio." if held else "."
    return Cell(name + rest, f"<strong>{escape(name)}</strong>{escape(rest)}")


def _breakable(name: str) -> Cell:
    """A variant's name, which may break between words of a class: torch's are longer than their column."""
    return Cell(name, re.sub(r"(?<=[a-z.])(?=[A-Z])", "<wbr/>", escape(name)))


def _variant(row: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    """A row's variant of this name; None where it was not measured."""
    return next((each for each in (row["variants"] if row else ()) if each["name"] == name), None)


def _time(row: Mapping[str, Any] | None, variant: Mapping[str, Any] | None) -> tuple[Cell, Cell]:
    """Time and ratio of a variant in a row; dashes where it was not measured."""
    if row is None or variant is None:
        return plain(BLANK), plain(BLANK)
    median, low, high = (1e3 * seconds for seconds in (variant["seconds"], *variant["quartiles"]))
    decimals = max(0, 2 - math.floor(math.log10(median)))  # three digits
    time = below(plain(f"{median:.{decimals}f}"), f"[{low:.{decimals}f}, {high:.{decimals}f}]", " ")
    return time, below(plain(f"{variant['ratio']:.2f}"), _mark(row, variant), " ")


def _held(by_heap: Mapping[str, Cell]) -> Cell:
    """What a variant holds: said once where both heaps say the same, else of each."""
    said = list(dict.fromkeys(by_heap.values()))
    if len(said) < 2:
        return said[0] if said else plain(BLANK)
    parts = [below(plain(heap), cell, ": ") for heap, cell in by_heap.items()]
    return Cell("; ".join(part.text for part in parts), "".join(f"<div>{part.html}</div>" for part in parts))


def _memory(row: Mapping[str, Any], variant: Mapping[str, Any]) -> Cell:
    """Mebibytes of a variant and, below, how many times the first one's they are; a dash if not measured."""
    ratio = memory_ratio(row, variant)
    if ratio is None:
        return plain(BLANK)
    held = plain(f"{variant['peak_bytes'] / 2**20:.3g}")
    if variant is row["variants"][0]:
        return held
    verdict = memory_reached(row, variant)
    mark = None if verdict is None else _verdict(verdict, row["memory_goal"])
    return below(below(held, f"× {ratio:.2f}", " "), mark, " ")


def _mark(row: Mapping[str, Any], variant: Mapping[str, Any]) -> Cell | None:
    """What is said of a ratio: that its row was disturbed, at the row's first line, or what became of the goal."""
    if row["disturbed"] and variant is row["variants"][0]:
        return _badge("⚠ disturbed", "attn-stale")
    if row["goal"] is None or variant["name"] != row["goal"]["against"]:
        return None
    verdict = reached(row, variant)
    if verdict is None:
        return _badge(f"○ {rounded(row['goal']['ratio'])}: not judged", "attn-pending")
    return _verdict(verdict, row["goal"])


def _verdict(is_reached: bool, goal: Mapping[str, Any]) -> Cell:
    figure = rounded(goal["ratio"])
    return _badge(f"✓ reaches {figure}", "attn-yes") if is_reached else _badge(f"✗ below {figure}", "attn-no")


def _badge(text: str, css: str) -> Cell:
    symbol, word = text.split(" ", 1)
    html = f'<span class="attn-state {css}"><span aria-hidden="true">{symbol}</span> {escape(word)}</span>'
    return Cell(text, html)


def _notes(result: Speed, rows: Sequence[Mapping[str, Any]], changed: str | None, root: str) -> list[Cell]:
    data = result.data
    rounds, probes = {row["rounds"] for row in rows}, [p for row in rows for p in row["probe_gflops"]]
    environment = data["environment"]
    counted = " to ".join(str(number) for number in sorted({min(rounds), max(rounds)}))
    measured = (
        f"Measured on {_when(data)}, {counted} rounds a row{_fewer(rows)}; the probe's matrix product ran "
        f"at {min(probes):.0f} to {max(probes):.0f} GFLOP/s."
    )
    path, name = f"results/{result.path}", Path(result.path).stem
    again = command(data["benchmark"], name, device=environment["device"], threads=environment["threads"])
    href = escape(f"{root}{path}", quote=True)
    return [
        *[plain(DISTURBED)] * any(row["disturbed"] for row in rows),
        *[plain(changed)] * bool(changed),
        *map(plain, goal_words(rows)),
        plain(rate_words(result)),
        *[plain(HEAP_WORDS)] * any(row["heap"] == "kept" for row in rows),
        plain(measured),
        *map(plain, _later_words(rows)),
        Cell(f"All numbers: {path}", f'All numbers: <a href="{href}">{escape(path)}</a>'),
        Cell(f"Measure again: {again}", f"Measure again: <code>{escape(again)}</code>"),
    ]


def _when(data: Mapping[str, Any]) -> str:
    """Date and commit of a result, or of a row that was measured later than its result."""
    code = data["code"]
    commit = f" at commit {code['commit'][:10]}" if code["commit"] else ""
    return f"{data['finished']}{commit}{' with changes' * (code['clean'] is False)}"


def _later_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which rows were measured after the others, a sentence for each day and commit."""
    later: dict[str, list[str]] = {}
    for row in rows:
        if "finished" in row:
            later.setdefault(_when(row), []).append(f"{row['name']} ({row['heap']} heap)")
    return [f"Measured later, on {when}: {', '.join(names)}." for when, names in later.items()]


def goal_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the rows of a result are judged by, a sentence for times and one for memory; none without figures."""
    said = []
    for key, name in (("goal", "time"), ("memory_goal", "memory")):
        counts = Counter(_figure(row[key]) for row in rows if row.get(key))
        if counts:
            figures = "; ".join(f"{figure} ({count})" for figure, count in counts.items())
            said.append(f"To reach in {name}, with the number of rows of both heaps: {figures}.")
    return said


def _figure(goal: Mapping[str, Any] | None) -> str:
    """A goal as words: how many times ours another variant is to take."""
    return "nothing" if goal is None else f"at least {goal['ratio']:.3g} times ours by {goal['against']}"


def rate_words(result: Speed) -> str:
    """Units a second of the first variant in each row, a sentence."""
    rows, heaps = (
        result.data["rows"],
        [heap for heap in HEAPS if any(r["heap"] == heap for r in result.data["rows"])],
    )
    said = []
    for name in dict.fromkeys(row["name"] for row in rows):
        rates = {row["heap"]: row["variants"][0]["rate"] for row in rows if row["name"] == name}
        said.append(f"{name} {' and '.join(rounded(rates[heap]) for heap in heaps if heap in rates)}")
    unit = result.data["unit"]
    return (
        f"{unit.capitalize()} a second of the first variant ({' and '.join(heaps)} heap): {'; '.join(said)}."
    )


@cache
def todays_rows(benchmark: str) -> tuple[Any, ...] | None:
    """The rows of a benchmark's code today, as `benchmarks.timing.Row`; None outside a checkout."""
    try:
        with _importable(repository_root()):
            return tuple(import_module(f"benchmarks.{benchmark}").rows())
    except (ImportError, UsageError):
        return None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules of this folder can be imported; from elsewhere, as notebooks are run, they cannot."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def changed_words(rows: Sequence[Mapping[str, Any]], today: Sequence[Any] | None) -> str | None:
    """How stored rows and figures differ from those of today's benchmark, a sentence; None if they do not.

    Args:
        rows: as stored, without figures that are asked no more.
        today: rows of the code, each with `name`, `goal` and `memory_goal`; None if they are not known.
    """
    if today is None:
        return None
    stored, now = {row["name"] for row in rows}, {row.name: row for row in today}
    parts = [
        f"{word} {', '.join(names)}"
        for word, names in (("it has not", [n for n in now if n not in stored]),
                            ("only it has", sorted(stored - now.keys())))
        if names
    ]  # fmt: skip
    changes: Counter[str] = Counter()
    for row in rows:
        for key in ("goal", "memory_goal") if row["name"] in now else ():
            goal = getattr(now[row["name"]], key)
            pair = _figure(row.get(key)), _figure(goal and goal.on(row["heap"]))
            if pair[0] != pair[1]:
                changes[f"{'memory' if key == 'memory_goal' else 'time'}: {pair[0]}, today {pair[1]}"] += 1
    parts += [f"{change} ({count} rows)" for change, count in changes.items()]
    return f"⚠ An earlier version of the benchmark gave this result: {'; '.join(parts)}." if parts else None


def _fewer(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which variants had fewer rounds than their rows, in brackets; nothing without any."""
    fewer = (
        f"{variant['rounds']} of {variant['name']} at {row['name']}"
        for row in rows
        for variant in row["variants"]
        if "rounds" in variant
    )
    said = ", ".join(dict.fromkeys(fewer))
    return f" ({said})" if said else ""


def of_benchmark(found: Sequence[Speed], benchmark: str) -> list[Speed]:
    """The results of one benchmark."""
    return [result for result in found if result.data["benchmark"] == benchmark]
