"""Claims of the Reformer's chapter on language models, timed steps and translation."""

from __future__ import annotations

from collections.abc import Mapping

from attn.experiments.reformer.runs import PAPER
from attn.experiments.reformer.text_runs import LABELS
from attn.experiments.reformer.translation_runs import LABELS as TRANSLATION_LABELS
from attn.reproduction.experiment import Claim, Control
from attn.reproduction.facts import load_papers
from attn.reproduction.records import Record

Runs = Mapping[str, Record]
MARGINS = {name: margin["value"] for name, margin in load_papers()[PAPER].margins.items()}
_SHALLOW, _MIDDLE, _DEEP = (f"byte_depth/layers_{n}" for n in (2, 4, 8))


# --- shared queries and keys, reversible layers: no worse, on one side only ------------------------------------


def _bits(record: Record) -> float:
    return record.metric("bits_per_byte")


_DEPTH_SHOWS = Control(
    statement="Two layers instead of four, all else equal, cost more bits: what matters shows at this budget",
    difference=lambda runs: _bits(runs[_SHALLOW]) - _bits(runs[_MIDDLE]),
)


def _no_worse(fact: str, model: str) -> Claim:
    ours, standard, margin = f"byte_lm/{model}", "byte_lm/standard", MARGINS["byte_bits"]
    return Claim(
        id=f"{fact}_{model}", fact=fact, kind="order", unit="bits per byte",
        experiments=(ours, standard, _SHALLOW, _MIDDLE),
        measure=f"Bits of {LABELS['standard']} + {margin:g} - bits of {LABELS[model]}, above 0: worse by less than "
        f"{margin:g}",
        difference=lambda runs: _bits(runs[standard]) + margin - _bits(runs[ours]), control=_DEPTH_SHOWS,
    )  # fmt: skip


def _growth(record: Record, other: Record, name: str) -> float:
    return record.metric(name) / other.metric(name) - 1


_MEMORY = Claim(
    id="c5_memory", fact="c5", kind="equality", margin="memory_of_depth", unit="share",
    experiments=(_MIDDLE, _DEEP),
    measure="Growth of the bytes that wait for the gradient from 4 to 8 reversible layers",
    difference=lambda runs: _growth(runs[_DEEP], runs[_MIDDLE], "saved_bytes"),
    control=Control(
        statement="With all activations kept, the bytes grow by more than the margin",
        difference=lambda runs: (
            _growth(runs[_DEEP], runs[_MIDDLE], "saved_bytes_kept") - MARGINS["memory_of_depth"]
        ),
    ),
)  # fmt: skip

_INPUTS = Claim(
    id="c5_inputs", fact="c5", kind="order", unit="share of the largest value",
    experiments=("byte_lm/reversible",),
    measure=f"{MARGINS['reconstruction']:g} minus the error of the inputs computed back from the outputs",
    difference=lambda runs: (
        MARGINS["reconstruction"] - runs["byte_lm/reversible"].metric("reconstruction_error")
    ),
    control=Control(
        statement="The error is not zero: inputs are computed, not kept",
        difference=lambda runs: runs["byte_lm/reversible"].metric("reconstruction_error"),
    ),
)  # fmt: skip


# --- time over length ------------------------------------------------------------------------------------------


def slowdown(record: Record) -> float:
    """Seconds of a step at the greatest length over those at the least, the tokens being as many, minus 1."""
    lengths = record.data["config"]["lengths"]
    return record.metric(f"seconds_{max(lengths)}") / record.metric(f"seconds_{min(lengths)}") - 1


_FULL = "step_time/standard"
_FULL_GROWS = Control(
    statement="The step with full attention grows by more than the margin",
    difference=lambda runs: slowdown(runs[_FULL]) - MARGINS["step_time"],
)


def _flat(model: str) -> Claim:
    ours = f"step_time/{model}"
    return Claim(
        id=f"c6_flat_{model}", fact="c6", kind="equality", margin="step_time", unit="share",
        experiments=(ours, _FULL),
        measure=f"Growth of a step's time from the least to the greatest length at equal tokens, {LABELS[model]}",
        difference=lambda runs: slowdown(runs[ours]), control=_FULL_GROWS,
    )  # fmt: skip


def _grows_less(model: str) -> Claim:
    ours = f"step_time/{model}"
    return Claim(
        id=f"c6_less_{model}", fact="c6", kind="order", unit="share", experiments=(ours, _FULL),
        measure=f"Growth of a step's time with length: full attention minus {LABELS[model]}",
        difference=lambda runs: slowdown(runs[_FULL]) - slowdown(runs[ours]), control=_FULL_GROWS,
    )  # fmt: skip


# --- translation -----------------------------------------------------------------------------------------------


def bleu_of_test(record: Record) -> float:
    """BLEU of the run's one test split, by sacreBLEU's defaults."""
    (split,) = record.data["config"]["corpus"]["tests"]
    return record.metric(f"bleu_{split}")


def _longer_is_worth(margin: str, long: str, short: str, which: str) -> Control:
    """Longer training of other models than those compared, or of one of them, shows a difference of this size."""
    worth = f"{MARGINS[margin]:g} BLEU"
    return Control(
        statement=f"Longer training of {which} is worth more than {worth}: so much shows at this budget",
        difference=lambda runs: (
            bleu_of_test(runs[f"translation/{long}"])
            - bleu_of_test(runs[f"translation/{short}"])
            - MARGINS[margin]
        ),
    )


def _experiments(*models: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"translation/{model}" for model in models))


_SHARED = ("long_shared", "short_shared", "the reversible model with shared embeddings")
_PLAIN = ("long_transformer", "transformer", "the Transformer")


def _better(name: str, better: str, worse: str, control: tuple[str, str, str]) -> Claim:
    ours, other = f"translation/{better}", f"translation/{worse}"
    return Claim(
        id=f"c7_{name}", fact="c7", kind="order", unit="BLEU", experiments=_experiments(better, worse, *control[:2]),
        measure=f"BLEU of {TRANSLATION_LABELS[better]} minus {TRANSLATION_LABELS[worse]}",
        difference=lambda runs: bleu_of_test(runs[ours]) - bleu_of_test(runs[other]),
        control=_longer_is_worth("translation_gain", *control),
    )  # fmt: skip


def _translates_no_worse(name: str, model: str, baseline: str) -> Claim:
    ours, other, margin = f"translation/{model}", f"translation/{baseline}", MARGINS["translation_bleu"]
    return Claim(
        id=name, fact="c5", kind="order", unit="BLEU", experiments=_experiments(model, baseline, *_SHARED[:2]),
        measure=f"BLEU of {TRANSLATION_LABELS[model]} + {margin:g} - BLEU of {TRANSLATION_LABELS[baseline]}, above 0: "
        f"worse by less than {margin:g}",
        difference=lambda runs: (
            bleu_of_test(runs[ours]) + margin - bleu_of_test(runs[other])
        ),
        control=_longer_is_worth("translation_bleu", *_SHARED),
    )  # fmt: skip


CLAIMS = (
    _no_worse("c4", "shared"),
    _no_worse("c5", "reversible"),
    _MEMORY,
    _INPUTS,
    _translates_no_worse("c5_bleu", "short_shared", "transformer"),
    _translates_no_worse("c5_bleu_long", "long_shared", "long_transformer"),
    *(_flat(model) for model in ("lsh2", "lsh8")),
    *(_grows_less(model) for model in ("lsh2", "lsh8")),
    _better("both", "long_apart", "short_shared", _PLAIN),
    _better("longer", "long_shared", "short_shared", _PLAIN),
    _better("longer_apart", "long_apart", "short_apart", _PLAIN),
    _better("untied", "short_apart", "short_shared", _SHARED),
    _better("untied_long", "long_apart", "long_shared", _SHARED),
)
