"""What the deviations of the Reformer's chapter change, where it is measured."""

from __future__ import annotations

from statistics import fmean

from attn.experiments.reformer.runs import LABELS
from attn.experiments.reformer.text_claims import bleu_of_test
from attn.experiments.reformer.translation_runs import LABELS as LABELS_OF_TRANSLATION
from attn.experiments.reformer.workloads import ROUNDS
from attn.reproduction.experiment import Effect
from attn.reproduction.records import Record


def _hashed(record: Record) -> float:
    return 100 * fmean(record.metric(f"accuracy_lsh{rounds}") for rounds in ROUNDS)


def _full(attention: str) -> Effect:
    return Effect(
        deviation="full_convention",
        measure="trained with full attention, symbols right under LSH, mean over 8, 4, 2 and 1 rounds",
        unit="percent",
        ours="duplication/full",
        undone=f"duplication/{attention}",
        otherwise=f"with {LABELS[attention]}",
        value=_hashed,
    )


def _code(deviation: str, measure: str, ours: str, undone: str, otherwise: str, evaluation: str) -> Effect:
    return Effect(
        deviation=deviation,
        measure=measure,
        unit="percent",
        ours=f"duplication/{ours}",
        undone=f"duplication/{undone}",
        otherwise=otherwise,
        value=lambda record: 100 * record.metric(f"accuracy_{evaluation}"),
    )


def _codes(row: str) -> tuple[Effect, Effect]:
    """The two steps from the paper's definition to reformer-pytorch's, for a model trained and evaluated alike."""
    measure = f"{LABELS[row]} in training and evaluation, symbols right"
    scaled = f"{measure}, products times 1/sqrt(d_k) and one bucket for each chunk on both sides"
    return (
        _code(
            "lsh_convention",
            scaled,
            f"{row}_replication",
            f"{row}_public",
            "by reformer-pytorch's convention",
            row,
        ),
        _code(
            "scale", measure, row, f"{row}_replication", "with the factor and one bucket for each chunk", row
        ),
    )


def _under_raw_keys(undone: str, otherwise: str) -> Effect:
    """What either departure of the replication's hashing does to the first column."""
    measure = f"trained with {LABELS['lsh2']}, symbols right under full attention with raw keys"
    return _code("scale", measure, "lsh2", undone, otherwise, "full_raw_keys")


def _fixed(row: str) -> Effect:
    measure = f"{LABELS[row]} by the replication's code in training and evaluation, symbols right"
    ours, undone = f"{row}_replication", f"{row}_fixed"
    return _code("rotations", measure, ours, undone, "with the same rotations in every call and head", row)


def _bleu(deviation: str, undone: str, otherwise: str) -> Effect:
    return Effect(
        deviation=deviation,
        measure=f"{LABELS_OF_TRANSLATION['short_shared']}, test split",
        unit="BLEU",
        ours="translation/short_shared",
        undone=f"translation/{undone}",
        otherwise=otherwise,
        value=bleu_of_test,
    )


EFFECTS = (
    *(_full(attention) for attention in ("full_with_self", "full_raw_keys", "full_plain", "separate")),
    *(effect for row in ("lsh4", "lsh1") for effect in _codes(row)),
    _under_raw_keys("lsh2_scaled", "with the factor alone"),
    _under_raw_keys("lsh2_one_bucket", "with one bucket for each chunk alone"),
    _under_raw_keys("lsh2_replication", "with both"),
    *(_fixed(row) for row in ("lsh2", "lsh1")),
    _bleu("translation_length", "long_shared", "with the long training"),
    _bleu("weight_sharing", "short_apart", "with three matrices"),
)
