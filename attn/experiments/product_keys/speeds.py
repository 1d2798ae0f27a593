"""What the benchmark of product-key memory says, in words; every ratio is of one row of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attn.reproduction.speed import Speed, of_benchmark, reached

# The row of whole language models' forward passes; its variants are named by `results.stand_in`.
INFERENCE = "inference, language models"


def _inference(found: Sequence[Speed]) -> Iterator[tuple[str, str, Mapping[str, Mapping[str, Any]]]]:
    """Device, heap, and the timed models by name, wherever forward passes were timed side by side and undisturbed."""
    for result in of_benchmark(found, "product_keys"):
        for row in result.data["rows"]:
            if row["name"] == INFERENCE and not row["disturbed"]:
                device = result.data["environment"]["device"]
                yield device, row["heap"], {variant["name"]: variant for variant in row["variants"]}


def time_ratios(found: Sequence[Speed], one: str, other: str) -> dict[str, float]:
    """Time of a forward pass of one model over that of another, by device and heap; both of one row of a run."""
    return {
        f"{device}, {heap} heap": models[one]["seconds"] / models[other]["seconds"]
        for device, heap, models in _inference(found)
        if one in models and other in models
    }


def listed(times: Mapping[str, float]) -> str:
    """Such ratios, each with its device and heap."""
    return ", ".join(f"{ratio:.2f} times ({where})" for where, ratio in times.items())


def rates(found: Sequence[Speed], *, device: str = "cpu", heap: str = "default") -> dict[str, float]:
    """Tokens a second of each timed model, as one row of a run has them; none where it was not measured."""
    for at, state, models in _inference(found):
        if (at, state) == (device, heap):
            return {name: variant["rate"] for name, variant in models.items()}
    return {}


def missed_words(found: Sequence[Speed]) -> list[str]:
    """Rows of the benchmark that miss their figure, in a sentence each."""
    results = of_benchmark(found, "product_keys")
    if not results:
        return ["Speed of the layer: not measured yet."]
    lines = [line for result in results for line in _missed(result)]
    return lines or ["The layer's benchmark reaches all of its figures."]


def _missed(result: Speed) -> Iterator[str]:
    for row in result.data["rows"]:
        for variant in row["variants"]:
            if reached(row, variant) is False:
                yield (
                    f"{row['name']}, {row['heap']} heap: {variant['name']} takes {variant['ratio']:.2f} times as long "
                    f"as the book's layer; {row['goal']['ratio']:g} was to be reached.{_would_pass(row)}"
                )


def _would_pass(row: Mapping[str, Any]) -> str:
    """The package's other optimisers, against which the figure would be reached, a sentence; empty without any."""
    package = row["goal"]["against"].partition(", ")[0]
    passed = [
        f"{variant['name'].removeprefix(package)[2:]} ({variant['ratio']:.2f})"
        for variant in row["variants"]
        if variant["name"].startswith(f"{package}, ") and round(variant["ratio"], 2) >= row["goal"]["ratio"]
    ]
    return (
        f" Against the package's layer with {' or with '.join(passed)} it would be reached." if passed else ""
    )


def growth_words(found: Sequence[Speed]) -> list[str]:
    """How a step grows with the number of slots, and which part of that is the search, a sentence for each heap."""
    lines = []
    for result in of_benchmark(found, "product_keys"):
        rows = {(row["heap"], row["name"]): row for row in result.data["rows"]}
        for heap in dict.fromkeys(heap for heap, _ in rows):
            pair = [_ends(rows.get((heap, f"{what} over slots"))) for what in ("step", "search")]
            if all(pair):
                lines.append(_growth(result.data["environment"]["device"], heap, *pair))
    return lines or ["Not measured yet."]


def _ends(row: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Seconds with the fewest and with the most slots; a row begins with the most."""
    return row and (row["variants"][-1]["seconds"], row["variants"][0]["seconds"])


def _growth(device: str, heap: str, step: tuple[float, float], search: tuple[float, float]) -> str:
    few, many = (1000 * seconds for seconds in step)
    return (
        f"{device}, {heap} heap: from the fewest to the most slots, a step grows from {few:.1f} to {many:.1f} ms, "
        f"{many / few:.1f}-fold, and the search in it {search[1] / search[0]:.1f}-fold; the search is "
        f"{(search[1] - search[0]) / (step[1] - step[0]):.0%} of what is added."
    )
