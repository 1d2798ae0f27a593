"""Claims of the Transformer's chapter, as tests on records of the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log

from attn.experiments.transformer.complexity import ATTENTION, RECURRENT, chains, crossing, multiply_adds
from attn.experiments.transformer.runs import PAPER
from attn.reproduction.experiment import Claim, Control
from attn.reproduction.facts import Paper, load_papers
from attn.reproduction.records import Record

Runs = Mapping[str, Record]
_BASE, _SMALLER = "table3/base", "table3/d_model_256"
NATS, _BLEU = "nats per subword", "BLEU"


def _bleu(record: Record) -> float:
    return record.metric("bleu_validation")


def plateau(record: Record) -> float | None:
    """Cost, in nats, that a run must end below to have left its corpus's plateau; None where none is known."""
    corpus = record.data["config"].get("corpus", {}).get("name", "")
    margin = load_papers()[PAPER].margins.get(f"plateau_{corpus.replace('-', '_')}")
    return None if margin is None else margin["value"]


def on_plateau(record: Record, metric: str = "perplexity") -> bool:
    """Whether a run ends before it has begun to learn what the rows of table 3 are compared on."""
    limit = plateau(record)
    return limit is not None and log(record.metric(metric)) >= limit


class _Costs:
    """Tests on table 3 for one way of taking a run's cost: after its last update, or where it is lowest.

    Args:
        metric: perplexity that a run's cost is the logarithm of; perplexities differ by a ratio, costs by a difference.
        leaves_plateau: whether a test needs all its rows to have left the plateau.
    """

    def __init__(self, metric: str, *, leaves_plateau: bool = True) -> None:
        self.metric, self.leaves_plateau = metric, leaves_plateau
        self.learns = Control(
            statement="The base model's validation BLEU is above 10, so that there are translations to compare",
            difference=lambda runs: _bleu(runs[_BASE]) - 10,
        )
        self.size_shows = Control(
            statement="A model of half the width costs more than the base model",
            difference=lambda runs: self.nats(runs[_SMALLER]) - self.nats(runs[_BASE]),
        )

    def nats(self, record: Record) -> float:
        """Cost of a validation subword."""
        return log(record.metric(self.metric))

    def control(self, control: Control, needed: Sequence[str]) -> Control:
        """`control`, and every run of the test has left the plateau; a seed of which one has not has no number."""
        if not self.leaves_plateau:
            return control

        def difference(runs: Runs) -> float:
            for name in needed:
                if on_plateau(runs[name], self.metric):
                    raise ValueError(
                        f"seed {runs[name].seed} of {name} ends on the plateau, at {self.nats(runs[name]):.2f} nats per "
                        f"subword where less than {plateau(runs[name]):g} is needed"
                    )
            return control.difference(runs)

        return Control(
            statement=f"{control.statement}; every row of the test has left the plateau in every seed",
            difference=difference,
        )

    def order(
        self, claim: str, measure: str, unit: str, larger: str, smaller: str, value: Callable[[Record], float],
        control: Control | None = None,
    ) -> Claim:  # fmt: skip
        """`value` of one row of table 3 minus that of another."""
        control = control or self.size_shows
        one, other = f"table3/{larger}", f"table3/{smaller}"
        needed = dict.fromkeys((one, other, _BASE, *([_SMALLER] if control is self.size_shows else [])))
        return Claim(
            id=claim, fact=claim.partition("_")[0], kind="order", measure=measure, unit=unit,
            experiments=tuple(needed), difference=lambda runs: value(runs[one]) - value(runs[other]),
            control=self.control(control, tuple(needed)),
        )  # fmt: skip

    def costs_more(
        self, claim: str, what: str, larger: str, smaller: str, control: Control | None = None
    ) -> Claim:
        """The validation cost of one row is above that of another."""
        return self.order(claim, f"Validation cost: {what}", NATS, larger, smaller, self.nats, control)

    def translates_better(self, claim: str, what: str, better: str, worse: str) -> Claim:
        """The validation BLEU of one row is above that of another."""
        return self.order(claim, f"Validation BLEU: {what}", _BLEU, better, worse, _bleu)

    def equal(
        self, claim: str, measure: str, unit: str, margin: str, value: Callable[[Record], float]
    ) -> Claim:
        """Learned positions are as good as sinusoids, within a margin of the facts."""
        learned = "table3/learned_positions"
        needed = (learned, _BASE, _SMALLER)
        return Claim(
            id=claim, fact="c6", kind="equality", measure=measure, unit=unit, margin=margin, experiments=needed,
            difference=lambda runs: value(runs[learned]) - value(runs[_BASE]),
            control=self.control(self.size_shows, needed),
        )  # fmt: skip

    def claims(self) -> tuple[Claim, ...]:
        """What the paper concludes from table 3."""
        more, better, learns = self.costs_more, self.translates_better, self.learns
        return (
            better("c1_one_head", "8 heads minus 1", "base", "h_1"),
            better("c1_many_heads", "8 heads minus 32", "base", "h_32"),
            more("c2_quarter", "a quarter of d_k minus half of it", "d_k_16", "d_k_32"),
            more("c2_half", "half of d_k minus all of it", "d_k_32", "base"),
            better("c2_bleu_quarter", "half of d_k minus a quarter of it", "d_k_32", "d_k_16"),
            better("c2_bleu_half", "all of d_k minus half of it", "base", "d_k_32"),
            more("c3_layers_2", "2 of 6 layers minus 4 of 6", "n_2", "n_4", learns),
            more("c3_layers_4", "4 of 6 layers minus 6", "n_4", "base", learns),
            more("c3_layers_8", "6 layers minus 8", "base", "n_8", learns),
            more("c3_half_width", "half of d_model minus all of it", "d_model_256", "base", learns),
            more("c3_double_width", "d_model minus twice as much", "base", "d_model_1024", learns),
            more("c3_half_inner", "half of d_ff minus all of it", "d_ff_1024", "base", learns),
            more("c3_double_inner", "d_ff minus twice as much", "base", "d_ff_4096", learns),
            more("c4_cost", "without dropout minus dropout 0.1", "p_drop_0", "base"),
            better("c4_bleu", "dropout 0.1 minus none", "base", "p_drop_0"),
            more("c4_between_none", "without dropout minus dropout 0.2", "p_drop_0", "p_drop_02"),
            more("c4_between_base", "dropout 0.2 minus 0.1", "p_drop_02", "base"),
            better("c4_bleu_between_none", "dropout 0.2 minus none", "p_drop_02", "p_drop_0"),
            better("c4_bleu_between_base", "dropout 0.1 minus 0.2", "base", "p_drop_02"),
            more("c5_cost", "label smoothing 0.1 minus none", "base", "eps_ls_0"),
            better("c5_bleu", "label smoothing 0.1 minus none", "base", "eps_ls_0"),
            self.equal("c6_cost", "Validation cost: learned positions minus sinusoids", NATS, "positions_cost",
                       self.nats),
            self.equal("c6_bleu", "Validation BLEU: learned positions minus sinusoids", _BLEU, "positions_bleu", _bleu),
        )  # fmt: skip


_TABLE3 = _Costs("perplexity").claims()
# The tests on cost with every run at its best evaluation. BLEU is scored after the last update only.
AT_BEST = tuple(claim for claim in _Costs("best_perplexity").claims() if claim.unit == NATS)
# The tests as they would be if a row might stay on the plateau: what the rule withholds.
WITHOUT_RULE = _Costs("perplexity", leaves_plateau=False).claims()


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
