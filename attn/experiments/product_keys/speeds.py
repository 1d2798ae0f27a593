"""What the benchmark of product-key memory says, in words; every ratio is of one row of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from attn.experiments.product_keys.concepts import touched_rows
from attn.reproduction.speed import Speed, of_benchmark, reached

# Sizes of the benchmark's layers, here since sentences count what is touched at them.
D_MODEL, D_FF, N_HEADS, TOPK, KEY_DIM = 512, 2048, 4, 32, 256
SLOTS: Mapping[str, int] = {"16k": 128, "65k": 256, "262k": 512, "1M": 1024}  # name: n_keys
LAYER_QUERIES, STEP_QUERIES, FEW_QUERIES, FEWEST_QUERIES = 4096, 1024, 256, 16
# The row of whole language models' forward passes; its variants are named by `results.stand_in`.
INFERENCE = "inference, language models"
# What is timed at every number of slots, and with how many queries.
GROWTH: Mapping[str, int] = {"over slots": FEW_QUERIES, "over slots, fewest queries": FEWEST_QUERIES}
# Share of a copy's bandwidth that a look-up is to reach on a GPU; nothing is asked of a CPU.
LOOKUP_SHARE = 0.6
# Quartiles further apart than this share of the median are told, whether or not the probe found a disturbance.
WIDE = 1 / 3


def touched(slots: str, n_queries: int) -> int:
    """Distinct rows that so many queries of the benchmark read, by the name of the size in `SLOTS`."""
    return touched_rows(SLOTS[slots], n_queries, d_model=D_MODEL, topk=TOPK, key_dim=KEY_DIM, n_heads=N_HEADS)


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
                    f"{_visited(row)}"
                )


def _visited(row: Mapping[str, Any]) -> str:
    """What an update by rows can save in a whole step, a sentence; empty for other rows."""
    kind, _, slots = row["name"].removesuffix(" slots").partition(", ")
    if kind != "step" or slots not in SLOTS:
        return ""
    rows, n_slots = touched(slots, STEP_QUERIES), SLOTS[slots] ** 2
    return (
        f" The {STEP_QUERIES:,} queries of the step read {rows:,} of {n_slots:,} rows: a dense update visits "
        f"{n_slots / rows:.1f} times as many."
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
    """How a step grows with the number of slots, and what of that the search and the rows touched are, in sentences."""
    lines = []
    for what, n_queries in GROWTH.items():
        timed = [_growth(grown, _touched_growth(n_queries)) for grown in _grown(found, what)]
        lines += [_touched_words(n_queries), *(timed or ["A step with them is not measured yet."])]
    return lines


def _touched_words(n_queries: int) -> str:
    rows = {slots: touched(slots, n_queries) for slots in SLOTS}
    said = ", ".join(f"{count:,} with {slots}" for slots, count in rows.items())
    return (
        f"{n_queries} queries look up {n_queries * N_HEADS * TOPK:,} rows. Distinct ones among them: {said} slots, "
        f"{_touched_growth(n_queries):.2f}-fold."
    )


def _touched_growth(n_queries: int) -> float:
    few, *_, many = (touched(slots, n_queries) for slots in SLOTS)
    return many / few


class _Grown(NamedTuple):
    """Seconds with the fewest and with the most slots, of a step and of the search in it."""

    where: str  # device and heap
    step: tuple[float, float]
    search: tuple[float, float]

    @property
    def rest(self) -> float:
        """How many times as long the step takes with the most slots, its search taken off."""
        few, many = (step - search for step, search in zip(self.step, self.search, strict=True))
        return many / few


def _grown(found: Sequence[Speed], what: str) -> Iterator[_Grown]:
    """Wherever step and search were timed."""
    for result in of_benchmark(found, "product_keys"):
        yield from _grown_in(result, what)


def _grown_in(result: Speed, what: str) -> Iterator[_Grown]:
    rows = {(row["heap"], row["name"]): row for row in result.data["rows"]}
    device = result.data["environment"]["device"]
    for heap in dict.fromkeys(heap for heap, _ in rows):
        pair = [_ends(rows.get((heap, f"{part} {what}"))) for part in ("step", "search")]
        if all(pair):
            yield _Grown(f"{device}, {heap} heap", *pair)


def _ends(row: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Seconds with the fewest and with the most slots; a row begins with the most."""
    return row and (row["variants"][-1]["seconds"], row["variants"][0]["seconds"])


def _growth(grown: _Grown, rows: float) -> str:
    step, search = grown.step, grown.search
    few, many = (1000 * seconds for seconds in step)
    more = "more" if grown.rest > rows else "no more"
    return (
        f"{grown.where}: from the fewest to the most slots, a step grows from {few:.1f} to {many:.1f} ms, "
        f"{many / few:.1f}-fold, and the search in it {search[1] / search[0]:.1f}-fold; the search is "
        f"{(search[1] - search[0]) / (step[1] - step[0]):.0%} of what is added, and the step without it grows "
        f"{grown.rest:.2f}-fold, {more} than the rows touched, {rows:.2f}-fold."
    )


def outgrown_words(found: Sequence[Speed]) -> list[str]:
    """Steps that, without the search, grow more than the rows that they touch, a sentence for each number of queries."""
    lines = []
    for what, n_queries in GROWTH.items():
        rows = _touched_growth(n_queries)
        more = [f"{each.rest:.2f}-fold ({each.where})" for each in _grown(found, what) if each.rest > rows]
        if more:
            lines.append(
                f"A step of {n_queries} queries, the search taken off, grows {' and '.join(more)} from the fewest to "
                f"the most slots, the rows that it touches {rows:.2f}-fold: these do not account for all of it."
            )
    return lines


def wide_words(found: Sequence[Speed]) -> list[str]:
    """Times whose quartiles lie far apart though the probe found no disturbance, a sentence; none without any."""
    wide = [
        f"{row['name']}, {row['heap']} heap, {variant['name']} [{low:,.0f}, {high:,.0f}]"
        for result in of_benchmark(found, "product_keys")
        for row in result.data["rows"]
        for variant in row["variants"]
        for low, high in [[1000 * second for second in variant["quartiles"]]]
        if not row["disturbed"] and high - low > WIDE * 1000 * variant["seconds"]
    ]
    if not wide:
        return []
    return [
        f"Quartiles more than {WIDE:.0%} of the median apart, in milliseconds, though the probe found the machine "
        f"undisturbed: {'; '.join(wide)}. Ratios with these times are uncertain by as much."
    ]


def lookup_words(found: Sequence[Speed]) -> list[str]:
    """Bandwidth of reading random rows beside that of a copy, a sentence for each device and heap."""
    lines = []
    for result in of_benchmark(found, "product_keys"):
        device = result.data["environment"]["device"]
        rows = [
            row for row in result.data["rows"] if row["name"].startswith("lookup, ") and not row["disturbed"]
        ]
        for heap in dict.fromkeys(row["heap"] for row in rows):
            said = " and ".join(_share_of_copy(row) for row in rows if row["heap"] == heap)
            lines.append(
                f"{device}, {heap} heap: random rows are read at this share of the bandwidth of a copy: {said}."
            )
    if not lines:
        return ["Reading rows: not measured yet."]
    return [*lines, f"On a GPU {LOOKUP_SHARE:.0%} is to be reached; nothing is asked of a CPU."]


def _share_of_copy(row: Mapping[str, Any]) -> str:
    slots = row["name"].removeprefix("lookup, ").removesuffix(" slots")
    ours, copied = row["variants"][:2]
    megabytes = SLOTS[slots] ** 2 * D_MODEL * 4 / 1e6
    reads = STEP_QUERIES * N_HEADS * TOPK / SLOTS[slots] ** 2
    return (
        f"{copied['seconds'] / ours['seconds']:.0%} with {slots} slots ({megabytes:.0f} MB, {reads:.1f} reads a row on "
        "average)"
    )
