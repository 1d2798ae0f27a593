"""Claims of the chapter on product-key memory, as tests on records of the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from attn.experiments.product_keys.concepts import Growth, search_growth
from attn.experiments.product_keys.runs import (
    BASE,
    KEYS,
    PAPER,
    POSITION,
    WITHOUT,
    facts_id,
    facts_sizes,
    keys_id,
    position_id,
)
from attn.experiments.product_keys.tables import LEAST_LOOKUPS, memory_metric, perplexity
from attn.reproduction.experiment import Claim, Control
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record

Runs = Mapping[str, Record]
_FACTS = load_papers()[PAPER]
_PERPLEXITY = "perplexity per subword"
_KEYS = tuple(row["n_keys"] for row in _FACTS.table("table2_batchnorm").rows)  # as printed
_POSITIONS = tuple(row["position"] for row in _FACTS.table("table3_position").rows)


def _row(memories: int, layers: int = 12) -> str:
    return f"depth/d1024_l{layers}_m{memories}"


def _slots(n_keys: int) -> str:
    (row,) = [row["row"] for row in _FACTS.table("table2_batchnorm").rows if row["n_keys"] == n_keys]
    return f"the memory that stands for {row} slots"


def _less(statement: str, worse: str, better: str) -> Control:
    """One model has a lower perplexity than another."""
    return Control(
        statement=statement,
        difference=lambda runs: perplexity(runs[worse]) - perplexity(runs[better]),
    )


# Where a memory changes nothing at this budget, its size, place and batch norm cannot either.
_MEMORY_PAYS = _less(
    f"The ablation model is better with {_slots(KEYS)}, in layer {POSITION}, than without a memory", WITHOUT, BASE
)  # fmt: skip


def _enough_lookups(*experiments: str) -> Control:
    return Control(
        statement=f"The validation text makes more than {LEAST_LOOKUPS} look-ups a slot",
        difference=lambda runs: (
            min(memory_metric(runs[one], "lookups_per_slot") for one in experiments) - LEAST_LOOKUPS
        ),
    )


def _order(
    claim: str, fact: str, measure: str, larger: str, smaller: str, of: Callable[[Record], float], unit: str,
    control: Control, *more: str, headline: bool = False,
) -> Claim:  # fmt: skip
    """`of` the records of `larger` minus that of `smaller`; `more` are records that the control needs."""
    return Claim(
        id=claim, fact=fact, kind="order", measure=measure, unit=unit, headline=headline,
        experiments=tuple(dict.fromkeys((smaller, larger, *more))),
        difference=lambda runs: of(runs[larger]) - of(runs[smaller]), control=control,
    )  # fmt: skip


# --- table 1 -------------------------------------------------------------------------------------------------

_DEPTH_PAYS = _less("Without memory, 24 layers beat 12", _row(0), _row(0, layers=24))
_ONE_PAYS = _less("12 layers are better with one memory than without", _row(0), _row(1))

_DEPTH = _order(
    "memory_beats_depth", "memory_beats_depth",
    "Test perplexity: the model that stands for 24 layers without memory minus the one for 12 layers with one",
    _row(0, layers=24), _row(1), perplexity, _PERPLEXITY,
    _DEPTH_PAYS, _row(0), headline=True,
)  # fmt: skip


def _more(memories: int) -> Claim:
    """The first memory cannot be its own control: depth is."""
    control, needed = (_DEPTH_PAYS, _row(0, layers=24)) if memories == 1 else (_ONE_PAYS, _row(1))
    return _order(
        f"more_memories_help_{memories}", "more_memories_help",
        f"Test perplexity, the model that stands for 12 layers: with {memories - 1} memories minus with {memories}",
        _row(memories - 1), _row(memories), perplexity, _PERPLEXITY, control, _row(0), needed,
    )  # fmt: skip


# --- table 2 -------------------------------------------------------------------------------------------------


def _usage(record: Record) -> float:
    return memory_metric(record, "usage")


def _divergence(record: Record) -> float:
    return memory_metric(record, "kl")


def _gain(runs: Runs, n_keys: int, of: Callable[[Record], float]) -> float:
    """What batch norm adds to a number of the memory."""
    return of(runs[keys_id(n_keys)]) - of(runs[keys_id(n_keys, batch_norm=False)])


def _batch_norm() -> tuple[Claim, ...]:
    small, large = _KEYS[0], _KEYS[-1]
    plain, normed = keys_id(large, batch_norm=False), keys_id(large)
    read = _enough_lookups(plain, normed)
    ends = (keys_id(small), keys_id(small, batch_norm=False), normed, plain)
    return (
        _order("bn_usage_usage", "bn_usage", f"Usage of {_slots(large)}: with batch norm minus without",
               normed, plain, _usage, "percent of slots", read),
        _order("bn_usage_kl", "bn_usage", f"Divergence from uniform use of {_slots(large)}: without batch norm minus "
               "with", plain, normed, _divergence, "nats", read),
        _order("bn_usage_perplexity", "bn_usage", f"Test perplexity with {_slots(large)}: without batch norm minus "
               "with", plain, normed, perplexity, _PERPLEXITY, _MEMORY_PAYS, WITHOUT, BASE),
        Claim(
            id="bn_usage_more_so", fact="bn_usage", kind="order", unit="percent of slots", experiments=ends,
            measure=f"What batch norm adds to usage: for {_slots(large)} minus for {_slots(small)}",
            difference=lambda runs: _gain(runs, large, _usage) - _gain(runs, small, _usage), control=read,
        ),
        Claim(
            id="bn_usage_more_so_kl", fact="bn_usage", kind="order", unit="nats", experiments=ends,
            measure="What batch norm takes off the divergence from uniform use: for "
                    f"{_slots(large)} minus for {_slots(small)}",
            difference=lambda runs: _gain(runs, small, _divergence) - _gain(runs, large, _divergence), control=read,
        ),
    )  # fmt: skip


def _larger(few: int, many: int) -> Claim:
    return _order(
        f"size_helps_{many}", "size_helps", f"Test perplexity: {_slots(few)} minus {_slots(many)}",
        keys_id(few), keys_id(many), perplexity, _PERPLEXITY, _MEMORY_PAYS, WITHOUT, BASE,
    )  # fmt: skip


RECALL_FACTS = 16384
RECALL_KEYS = facts_sizes(RECALL_FACTS, "keys")


def _recalls(few: int, many: int) -> Claim:
    smaller, larger = (facts_id(RECALL_FACTS, f"keys{n_keys}") for n_keys in (few, many))
    without = facts_id(RECALL_FACTS, "none")
    return _order(
        f"size_helps_facts_{many}", "size_helps",
        f"Bits stored of {RECALL_FACTS:,} key-value facts: with {many**2:,} slots minus with {few**2:,}",
        larger, smaller, _stored_bits, "bits",
        Control(
            statement="The larger memory stores more than the same model without a memory",
            difference=lambda runs: _stored_bits(runs[larger]) - _stored_bits(runs[without]),
        ),
        without,
    )  # fmt: skip


def _stored_bits(record: Record) -> float:
    return record.metric("stored_bits")


# --- table 3 -------------------------------------------------------------------------------------------------


# Each test compares two layers that are named before any run, or as many with as many. The best of several runs is
# better than a single one by chance alone, so a layer set beside the best or the worst of the others would win or lose
# where all layers are alike.
_FIRST, _TOP = _POSITIONS[0], _POSITIONS[-1]
_BEST_IN_PRINT = min(_FACTS.table("table3_position").rows, key=lambda row: row["ppl"])
_LOWER, _UPPER = _POSITIONS[: len(_POSITIONS) // 2], _POSITIONS[len(_POSITIONS) // 2 :]


def _worse_place(claim: str, worse: int, better: int, why: str = "") -> Claim:
    return _order(
        claim, "position_middle", f"Test perplexity: memory in layer {worse} minus memory in layer {better}{why}",
        position_id(worse), position_id(better), perplexity, _PERPLEXITY, _MEMORY_PAYS, WITHOUT, BASE,
    )  # fmt: skip


def _best(runs: Runs, positions: Sequence[int]) -> float:
    return min(perplexity(runs[position_id(position)]) for position in positions)


_PLACES = (
    *(_worse_place(f"position_middle_first_{other}", _FIRST, other) for other in _POSITIONS[1:]),
    _worse_place("position_middle_top", _TOP, _BEST_IN_PRINT["position"], ", the best one in print"),
    Claim(
        id="position_middle_upper", fact="position_middle", kind="order", unit=_PERPLEXITY,
        measure=f"Test perplexity: the best of layers {_LOWER[0]} to {_LOWER[-1]} minus the best of layers {_UPPER[0]} "
                f"to {_UPPER[-1]}",
        experiments=(WITHOUT, *(position_id(position) for position in _POSITIONS)),
        difference=lambda runs: _best(runs, _LOWER) - _best(runs, _UPPER),
        control=_MEMORY_PAYS,
    ),
)  # fmt: skip


# --- what is computed ----------------------------------------------------------------------------------------

_SEARCHING = facts_id(RECALL_FACTS, "keys64")
_EXACT = Claim(
    id="exact_search", fact="exact_search", kind="equality", margin="inexact_searches", unit="share of searches",
    measure="Searches by halves, on queries of models trained on key-value facts and in double precision, that do not "
            "find the k highest scores of all slots",
    experiments=(_SEARCHING,),
    difference=lambda runs: 1 - memory_metric(runs[_SEARCHING], "search_exact"),
    control=Control(
        statement="A search that keeps too few candidates of each half misses in more than half of the cases",
        difference=lambda runs: 0.5 - memory_metric(runs[_SEARCHING], "short_search_exact"),
    ),
)  # fmt: skip

_CHEAPER = Claim(
    id="product_vs_flat_speed_counted", fact="product_vs_flat_speed", kind="arithmetic", counted=True,
    measure="Multiplications counted while the code searches, in matrix products and one by one: those of product keys "
            "grow as sqrt(K) d_q and not with k, whose k^2 pairs cost additions alone; those of flat keys as K d_q",
    holds=lambda paper: _grows_as_claimed(),
)  # fmt: skip


def _grows_as_claimed() -> bool:
    """Exponents over sqrt(K), over the width of a query and over k."""
    growths = {"product": search_growth(flat=False), "flat": search_growth(flat=True)}
    return growths == {"product": Growth(1, 1, 0), "flat": Growth(2, 1, 0)}


CLAIMS = (
    _DEPTH,
    *(_more(memories) for memories in (1, 2, 3)),
    *_batch_norm(),
    *(_larger(few, many) for few, many in pairwise(_KEYS)),
    *(_recalls(few, many) for few, many in pairwise(RECALL_KEYS)),
    *_PLACES,
    _EXACT,
    _CHEAPER,
)  # fmt: skip
