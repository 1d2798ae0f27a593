"""Claims of the Reformer's chapter, as tests on records of the same seed."""

from __future__ import annotations

from collections.abc import Mapping

from attn.experiments.reformer import text_claims
from attn.experiments.reformer.runs import LABELS, PAPER, TABLE2_ROWS, own_evaluation
from attn.reproduction.experiment import Claim, Control
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record

Runs = Mapping[str, Record]
_SHARE = "share of symbols"
_ROUNDS = (1, 2, 4, 8)
_STEPS = tuple(zip(_ROUNDS, _ROUNDS[1:], strict=False))


def _accuracy(record: Record, evaluation: str) -> float:
    return record.metric(f"accuracy_{evaluation}")


def _accuracy_of(rounds: int) -> str:
    return f"accuracy({rounds} round{'s' * (rounds > 1)})"


def _learned(attention: str) -> Control:
    """The model has learned the task with the attention that it was trained with."""
    own, experiment = own_evaluation(attention), f"duplication/{attention}"
    return Control(
        statement="Evaluated with the attention of its training, the model gets more than half of the symbols right",
        difference=lambda runs: _accuracy(runs[experiment], own) - 0.5,
    )


def _more_rounds(claim: str, attention: str, few: int, many: int) -> Claim:
    experiment = f"duplication/{attention}"
    return Claim(
        id=f"{claim}_{attention}_{many}_{few}", fact=claim, kind="order", unit=_SHARE, experiments=(experiment,),
        measure=f"Trained with {LABELS[attention]}: {_accuracy_of(many)} - {_accuracy_of(few)}",
        difference=lambda runs: _accuracy(runs[experiment], f"lsh{many}") - _accuracy(runs[experiment], f"lsh{few}"),
        control=_learned(attention),
    )  # fmt: skip


def _never_fewer(attention: str, few: int, many: int) -> Claim:
    """A step of "rises with rounds", where values near 100 percent may stay as they are."""
    experiment, margin = f"duplication/{attention}", load_papers()[PAPER].margins["monotone_rounds"]["value"]
    return Claim(
        id=f"c3_{attention}_step_{many}_{few}", fact="c3", kind="order", unit=_SHARE, experiments=(experiment,),
        measure=f"Trained with {LABELS[attention]}: {_accuracy_of(many)} - {_accuracy_of(few)} + {margin:g}, above 0: "
        f"falls by less than {margin:g}{_within(attention, few, many, margin)}",
        difference=lambda runs: (
            _accuracy(runs[experiment], f"lsh{many}") + margin - _accuracy(runs[experiment], f"lsh{few}")
        ),
        control=_learned(attention),
    )  # fmt: skip


def _within(attention: str, few: int, many: int, margin: float) -> str:
    """What a step says that is smaller in print than the margin, a clause; nothing of others."""
    label = next(label for label, name in TABLE2_ROWS.items() if name == attention)
    row = next(row for row in load_papers()[PAPER].table("table2").rows if row["train"] == label)
    step = (row[f"eval_lsh{many}"] - row[f"eval_lsh{few}"]) / 100
    if step >= margin:
        return ""
    return (
        f"; in print the step is {step:.1g}, less than what is added: that it holds says no fall, not a rise"
    )


def _hashing_loses(rounds: int) -> Claim:
    experiment = "duplication/full"
    return Claim(
        id=f"c1_full_{rounds}", fact="c1", kind="order", unit=_SHARE, experiments=(experiment,),
        measure=f"Trained with {LABELS['full']}: accuracy(full attention) - {_accuracy_of(rounds)}",
        difference=lambda runs: _accuracy(runs[experiment], "full") - _accuracy(runs[experiment], f"lsh{rounds}"),
        control=_learned("full"),
    )  # fmt: skip


def _almost_perfect(attention: str) -> Claim:
    experiment = f"duplication/{attention}"
    level = load_papers()[PAPER].margins["almost_perfect"]["value"]
    return Claim(
        id=f"c2_{attention}", fact="c2", kind="order", unit=_SHARE, experiments=(experiment,),
        measure=f"Trained with {LABELS[attention]}: {_accuracy_of(8)} - {level:g}, above 0",
        difference=lambda runs: _accuracy(runs[experiment], "lsh8") - level, control=_learned(attention),
    )  # fmt: skip


_TRAINED_WITH_LSH = ("lsh4", "lsh2", "lsh1")
CLAIMS = (
    *(_hashing_loses(rounds) for rounds in _ROUNDS),
    *(_more_rounds("c1", "full", few, many) for few, many in _STEPS),
    *(_almost_perfect(attention) for attention in _TRAINED_WITH_LSH),
    *(_more_rounds("c3", attention, 1, 8) for attention in _TRAINED_WITH_LSH),
    *(_never_fewer(attention, few, many) for attention in _TRAINED_WITH_LSH for few, many in _STEPS),
    *text_claims.CLAIMS,
)
