"""Claims of the Transformer's chapter, as tests on records of the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log

from attn.experiments.transformer.complexity import ATTENTION, RECURRENT, chains, crossing, multiply_adds
from attn.reproduction.experiment import Claim, Control
from attn.reproduction.facts import Paper
from attn.reproduction.records import Record

Runs = Mapping[str, Record]
_BASE = "table3/base"
_NATS, _BLEU = "nats per subword", "BLEU"


def _nats(record: Record) -> float:
    """Cost of a validation subword; perplexities differ by a ratio, costs by a difference."""
    return log(record.metric("perplexity"))


def _bleu(record: Record) -> float:
    return record.metric("bleu_validation")


_LEARNS = Control(
    statement="The base model's validation BLEU is above 10, so that there are translations to compare",
    difference=lambda runs: _bleu(runs[_BASE]) - 10,
)
_SIZE_SHOWS = Control(
    statement="A model of half the width costs more than the base model",
    difference=lambda runs: _nats(runs["table3/d_model_256"]) - _nats(runs[_BASE]),
)


def _order(
    claim: str, measure: str, unit: str, larger: str, smaller: str,
    value: Callable[[Record], float], control: Control = _SIZE_SHOWS,
) -> Claim:  # fmt: skip
    """`value` of one row of table 3 minus that of another."""
    one, other = f"table3/{larger}", f"table3/{smaller}"
    needed = dict.fromkeys((one, other, _BASE, *(["table3/d_model_256"] if control is _SIZE_SHOWS else [])))
    return Claim(
        id=claim, fact=claim.partition("_")[0], kind="order", measure=measure, unit=unit, experiments=tuple(needed),
        difference=lambda runs: value(runs[one]) - value(runs[other]), control=control,
    )  # fmt: skip


def _costs_more(claim: str, what: str, larger: str, smaller: str, control: Control = _SIZE_SHOWS) -> Claim:
    return _order(claim, f"Validation cost: {what}", _NATS, larger, smaller, _nats, control)


def _translates_better(claim: str, what: str, better: str, worse: str) -> Claim:
    return _order(claim, f"Validation BLEU: {what}", _BLEU, better, worse, _bleu)


def _equal(claim: str, measure: str, unit: str, margin: str, value: Callable[[Record], float]) -> Claim:
    learned = "table3/learned_positions"
    return Claim(
        id=claim, fact="c6", kind="equality", measure=measure, unit=unit, margin=margin,
        experiments=(learned, _BASE, "table3/d_model_256"),
        difference=lambda runs: value(runs[learned]) - value(runs[_BASE]), control=_SIZE_SHOWS,
    )  # fmt: skip


_TABLE3 = (
    _translates_better("c1_one_head", "8 heads minus 1", "base", "h_1"),
    _translates_better("c1_many_heads", "8 heads minus 32", "base", "h_32"),
    _costs_more("c2_quarter", "a quarter of d_k minus half of it", "d_k_16", "d_k_32"),
    _costs_more("c2_half", "half of d_k minus all of it", "d_k_32", "base"),
    _costs_more("c3_layers_2", "2 of 6 layers minus 4 of 6", "n_2", "n_4", _LEARNS),
    _costs_more("c3_layers_4", "4 of 6 layers minus 6", "n_4", "base", _LEARNS),
    _costs_more("c3_layers_8", "6 layers minus 8", "base", "n_8", _LEARNS),
    _costs_more("c3_half_width", "half of d_model minus all of it", "d_model_256", "base", _LEARNS),
    _costs_more("c3_double_width", "d_model minus twice as much", "base", "d_model_1024", _LEARNS),
    _costs_more("c3_half_inner", "half of d_ff minus all of it", "d_ff_1024", "base", _LEARNS),
    _costs_more("c3_double_inner", "d_ff minus twice as much", "base", "d_ff_4096", _LEARNS),
    _costs_more("c4_cost", "without dropout minus dropout 0.1", "p_drop_0", "base"),
    _translates_better("c4_bleu", "dropout 0.1 minus none", "base", "p_drop_0"),
    _costs_more("c4_between_none", "without dropout minus dropout 0.2", "p_drop_0", "p_drop_02"),
    _costs_more("c4_between_base", "dropout 0.2 minus 0.1", "p_drop_02", "base"),
    _costs_more("c5_cost", "label smoothing 0.1 minus none", "base", "eps_ls_0"),
    _translates_better("c5_bleu", "label smoothing 0.1 minus none", "base", "eps_ls_0"),
    _equal("c6_cost", "Validation cost: learned positions minus sinusoids", _NATS, "positions_cost", _nats),
    _equal("c6_bleu", "Validation BLEU: learned positions minus sinusoids", _BLEU, "positions_bleu", _bleu),
)


# --- arithmetic: on counted operations and on printed cells ------------------------------------------------------


def _best_of_all(paper: Paper) -> bool:
    """The base model's BLEU is above, and its FLOPs below, those of every earlier system that prints both."""
    *earlier, base, _ = paper.table("table2").rows
    return all(
        row["bleu_en_de"] < base["bleu_en_de"] and row["flops_en_de"] > base["flops_en_de"]
        for row in earlier
        if row["bleu_en_de"] is not None and row["flops_en_de"] is not None
    )


def _costs_cross(paper: Paper) -> bool:
    """Doubling n makes attention four times and recurrence twice as dear, doubling d the other way round."""

    def cost(kind: str, n: int, d: int) -> int:
        return multiply_adds(kind, n, d).term

    small, long, wide = (32, 32), (64, 32), (32, 64)
    growth = {
        kind: (cost(kind, *long) / cost(kind, *small), cost(kind, *wide) / cost(kind, *small))
        for kind in (ATTENTION, RECURRENT)
    }
    return growth == {ATTENTION: (4, 2), RECURRENT: (2, 4)} and crossing(ATTENTION, RECURRENT, 32) == 32


def _depth_grows(paper: Paper) -> bool:
    """The longest chain of products is as long as the sequence in a recurrence, and the same in attention."""
    lengths = (4, 8, 16)
    recurrent, attention = (chains(kind, lengths) for kind in (RECURRENT, ATTENTION))
    return recurrent == {n: n for n in lengths} and len(set(attention.values())) == 1


_ARITHMETIC = (
    Claim(
        id="c7_costs_cross",
        fact="c7",
        kind="arithmetic",
        measure="Multiply-adds counted on our layers, the table's terms: growth with n and d, and equal cost at n = d",
        holds=_costs_cross,
    ),
    Claim(
        id="c8_depth",
        fact="c8",
        kind="arithmetic",
        measure="Longest chain of matrix products that wait for each other in one of our layers, for n = 4, 8 and 16",
        holds=_depth_grows,
    ),
    Claim(
        id="c9_base_beats_all",
        fact="c9",
        kind="arithmetic",
        measure="Printed cells of table 2, English to German: every earlier system with both numbers has a lower BLEU "
        "and a higher cost than the base model",
        holds=_best_of_all,
    ),
)

CLAIMS = (*_TABLE3, *_ARITHMETIC)
