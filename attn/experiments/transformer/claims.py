"""Claims of the Transformer's chapter, as tests on records of the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import log

from attn.experiments.transformer.complexity import ATTENTION, RECURRENT, chains, crossing, multiply_adds
from attn.experiments.transformer.runs import GRID, PAPER
from attn.reproduction.experiment import Claim, Control
from attn.reproduction.facts import Paper, load_papers
from attn.reproduction.records import Record

Runs = Mapping[str, Record]
Rule = tuple[str, Callable[[Record, str], None]]
_BASE, _SMALLER, _SHALLOW = (f"{GRID}/{row}" for row in ("base", "d_model_256", "n_2"))
_NATS, _BLEU = "nats per subword", "BLEU"


def plateau(record: Record) -> float | None:
    """Cross-entropy, in nats, that a run must end below to have left its corpus's plateau; None where none is known."""
    corpus = record.data["config"].get("corpus", {}).get("name", "")
    margin = load_papers()[PAPER].margins.get(f"plateau_{corpus.replace('-', '_')}")
    return None if margin is None else margin["value"]


def on_plateau(record: Record, metric: str = "perplexity") -> bool:
    """Whether a run ends before it has begun to learn what the rows of table 3 are compared on."""
    limit = plateau(record)
    return limit is not None and log(record.metric(metric)) >= limit


def fall(record: Record) -> float:
    """Share by which a run's validation perplexity fell between its last two evaluations; below 0 where it rose.

    Raises:
        ValueError: if the run was evaluated only once, so that nothing says whether it still falls.
    """
    if len(record.history) < 2:
        raise ValueError(f"seed {record.seed} of {record.key[1]} has fewer than two evaluations")
    before, last = (entry["perplexity"] for entry in record.history[-2:])
    return 1 - last / before


def most_fall() -> float:
    """Largest `fall` of a run that a test is judged on."""
    return load_papers()[PAPER].margins["still_falling"]["value"]


def still_falling(record: Record) -> bool:
    """Whether a run ends within the jump: its place says how far it has come and not what its row is worth."""
    return fall(record) > most_fall()


def _left_plateau(record: Record, metric: str) -> None:
    """Raise ValueError if a run ends on its corpus's plateau."""
    if on_plateau(record, metric):
        raise ValueError(
            f"seed {record.seed} of {record.key[1]} ends on the plateau, at {log(record.metric(metric)):.2f} nats per "
            f"subword where less than {plateau(record):g} is needed"
        )


def _settled(record: Record, metric: str) -> None:
    """Raise ValueError if a run's perplexity still fell at its end; of the run itself, whatever the metric."""
    if still_falling(record):
        raise ValueError(
            f"seed {record.seed} of {record.key[1]} was still falling, by {fall(record):.1%} of its perplexity between "
            f"the last two evaluations where {most_fall():.0%} at most is allowed"
        )


_PLATEAU_RULE = ("has left the plateau in every seed", _left_plateau)
_FALLING_RULE = ("has stopped falling in every seed", _settled)


class _Scores:
    """Tests on table 3 for one way of scoring a run: after its last update, or at its best evaluation.

    Args:
        metric: perplexity that a run's cross-entropy is the logarithm of: a ratio of the one, a difference of the other.
        bleu: metric that its BLEU is.
        rules: what every run of a test has to meet, the control's included: in words, and as a function of a run and
            `metric` that raises ValueError.
    """

    def __init__(
        self, metric: str = "perplexity", bleu: str = "bleu_validation", *,
        rules: Sequence[Rule] = (_PLATEAU_RULE, _FALLING_RULE),
    ) -> None:  # fmt: skip
        self.metric, self.bleu_metric, self.rules = metric, bleu, tuple(rules)
        self.size_shows = self._worse(
            _SMALLER, "A model of half the width has a higher cross-entropy than the base model"
        )
        # Half the width would be its own control. In print no row has a higher perplexity than this one.
        self.depth_shows = self._worse(
            _SHALLOW,
            "A model of a third of the layers, the row of highest printed perplexity, has a higher cross-entropy than "
            "the base model",
        )
        self.no_positions = replace(
            self.size_shows,
            statement=f"{self.size_shows.statement} (a difference of size: nothing here shows that positions matter at "
            "this budget, as a model without any would)",
        )

    def _worse(self, name: str, statement: str) -> Control:
        """A row of another size has a higher cross-entropy than the base model."""
        return Control(
            statement=statement, difference=lambda runs: self.nats(runs[name]) - self.nats(runs[_BASE])
        )

    def nats(self, record: Record) -> float:
        """Cross-entropy of a validation subword."""
        return log(record.metric(self.metric))

    def bleu(self, record: Record) -> float:
        """BLEU on the validation split."""
        return record.metric(self.bleu_metric)

    def control(self, control: Control, needed: Sequence[str]) -> Control:
        """`control`, and every run of the test meets the rules; a seed of which one does not has no number."""
        if not self.rules:
            return control

        def difference(runs: Runs) -> float:
            for _, meet in self.rules:
                for name in needed:
                    meet(runs[name], self.metric)
            return control.difference(runs)

        said = " and ".join(words for words, _ in self.rules)
        return Control(statement=f"{control.statement}; every row of the test {said}", difference=difference)

    def order(
        self, claim: str, measure: str, unit: str, larger: str, smaller: str, value: Callable[[Record], float],
        control: Control | None = None,
    ) -> Claim:  # fmt: skip
        """`value` of one row of table 3 minus that of another."""
        control = control or self.size_shows
        one, other = f"{GRID}/{larger}", f"{GRID}/{smaller}"
        needed = dict.fromkeys((one, other, _BASE, _SHALLOW if control is self.depth_shows else _SMALLER))
        return Claim(
            id=claim, fact=claim.partition("_")[0], kind="order", measure=measure, unit=unit,
            experiments=tuple(needed), difference=lambda runs: value(runs[one]) - value(runs[other]),
            control=self.control(control, tuple(needed)),
        )  # fmt: skip

    def higher(
        self, claim: str, what: str, larger: str, smaller: str, control: Control | None = None
    ) -> Claim:
        """The validation cross-entropy of one row is above that of another."""
        return self.order(
            claim, f"Validation cross-entropy: {what}", _NATS, larger, smaller, self.nats, control
        )

    def translates_better(self, claim: str, what: str, better: str, worse: str) -> Claim:
        """The validation BLEU of one row is above that of another."""
        return self.order(claim, f"Validation BLEU: {what}", _BLEU, better, worse, self.bleu)

    def equal(
        self, claim: str, measure: str, unit: str, margin: str, value: Callable[[Record], float]
    ) -> Claim:
        """Learned positions are as good as sinusoids, within a margin of the facts."""
        learned = f"{GRID}/learned_positions"
        needed = (learned, _BASE, _SMALLER)
        return Claim(
            id=claim, fact="c6", kind="equality", measure=measure, unit=unit, margin=margin, experiments=needed,
            difference=lambda runs: value(runs[learned]) - value(runs[_BASE]),
            control=self.control(self.no_positions, needed),
        )  # fmt: skip

    def claims(self) -> tuple[Claim, ...]:
        """What the paper concludes from table 3."""
        more, better = self.higher, self.translates_better
        return (
            better("c1_one_head", "8 heads minus 1", "base", "h_1"),
            better("c1_many_heads", "8 heads minus 32", "base", "h_32"),
            more("c2_quarter", "a quarter of d_k minus half of it", "d_k_16", "d_k_32"),
            more("c2_half", "half of d_k minus all of it", "d_k_32", "base"),
            better("c2_bleu_quarter", "half of d_k minus a quarter of it", "d_k_32", "d_k_16"),
            better("c2_bleu_half", "all of d_k minus half of it", "base", "d_k_32"),
            more("c3_layers_2", "2 of 6 layers minus 4 of 6", "n_2", "n_4"),
            more("c3_layers_4", "4 of 6 layers minus 6", "n_4", "base"),
            more("c3_layers_8", "6 layers minus 8", "base", "n_8"),
            more("c3_half_width", "half of d_model minus all of it", "d_model_256", "base", self.depth_shows),
            more("c3_double_width", "d_model minus twice as much", "base", "d_model_1024"),
            more("c3_half_inner", "half of d_ff minus all of it", "d_ff_1024", "base"),
            more("c3_double_inner", "d_ff minus twice as much", "base", "d_ff_4096"),
            more("c4_cost", "without dropout minus dropout 0.1", "p_drop_0", "base"),
            better("c4_bleu", "dropout 0.1 minus none", "base", "p_drop_0"),
            more("c4_between_none", "without dropout minus dropout 0.2", "p_drop_0", "p_drop_02"),
            more("c4_between_base", "dropout 0.2 minus 0.1", "p_drop_02", "base"),
            better("c4_bleu_between_none", "dropout 0.2 minus none", "p_drop_02", "p_drop_0"),
            better("c4_bleu_between_base", "dropout 0.1 minus 0.2", "base", "p_drop_02"),
            more("c5_cost", "label smoothing 0.1 minus none", "base", "eps_ls_0"),
            better("c5_bleu", "label smoothing 0.1 minus none", "base", "eps_ls_0"),
            self.equal("c6_cost", "Validation cross-entropy: learned positions minus sinusoids", _NATS,
                       "positions_cost", self.nats),
            self.equal("c6_bleu", "Validation BLEU: learned positions minus sinusoids", _BLEU, "positions_bleu",
                       self.bleu),
        )  # fmt: skip


TABLE3 = _Scores().claims()
# The same tests with every run at its best evaluation.
AT_BEST = _Scores("best_perplexity", "bleu_validation_at_best").claims()
# The tests as they would be if a row might still fall, and if it might stay on the plateau, too: what a rule withholds.
WITHOUT_FALLING = _Scores(rules=(_PLATEAU_RULE,)).claims()
WITHOUT_RULE = _Scores(rules=()).claims()


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
        "and more FLOPs than the base model",
        holds=_best_of_all,
    ),
)

CLAIMS = (*TABLE3, *_ARITHMETIC)
