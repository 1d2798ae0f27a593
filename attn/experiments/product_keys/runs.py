"""Which config of the chapter on product-key memory stands for which row at which profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from math import ceil
from typing import Any

import torch

from attn.data.key_value_facts import KeyValueFacts
from attn.data.language_text import TextConfig
from attn.experiments.product_keys.joined import JoinedRunConfig, JoinedTextWorkload
from attn.experiments.product_keys.workloads import (
    FactsConfig,
    FactsWorkload,
    MemoryConfig,
    MemoryTextWorkload,
    TextRunConfig,
    TrunkConfig,
    build_model,
)
from attn.reproduction.experiment import BOOK_PROFILE, Experiment
from attn.reproduction.facts import load_papers
from attn.training.config import TrainingConfig

PAPER = "lample2019pkm"
_FACTS = load_papers()[PAPER]

Row = Mapping[str, Any]


def build_text(config: TextRunConfig, seed: int, device: torch.device) -> MemoryTextWorkload:
    """Workload of a language model."""
    return MemoryTextWorkload(config, seed, device)


def build_joined(config: JoinedRunConfig, seed: int, device: torch.device) -> JoinedTextWorkload:
    """Workload of a language model whose memory joins a feed-forward sub-layer."""
    return JoinedTextWorkload(config, seed, device)


def build_facts(config: FactsConfig, seed: int, device: torch.device) -> FactsWorkload:
    """Workload of key-value facts."""
    return FactsWorkload(config, seed, device)


# --- language models as printed ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PrintedModel:
    """A language model in the paper's own sizes, which a profile may make smaller.

    Attributes:
        id: of its experiment; what stands before the stroke is its task.
        label: for people.
        layers, dim: of the trunk.
        memories: layers with a memory, from 1; as a number, so many of them evenly spread.
        changes: fields of `MemoryConfig` that differ from its defaults, which are the paper's.
        tables: of the facts that its runs fill.
        grown: "d_ff" or "n_layers" of a model without memory, grown until it has as many parameters as `GROWN_LIKE`.
        small_text: trained on a text so short that it is read many times.
        undone: fields of a budget or of its training that this run sets back to the paper's, and their values.
        joins: the memories stand beside feed-forward sub-layers, and do not replace them.
    """

    id: str
    label: str
    layers: int
    dim: int
    memories: int | tuple[int, ...] = 0
    changes: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[str, ...] = ()
    grown: str | None = None
    small_text: bool = False
    undone: Mapping[str, Any] = field(default_factory=dict)
    joins: bool = False


def spread(n_layers: int, n_memories: int) -> tuple[int, ...]:
    """Layers of evenly spread memories, from 1; a single one is in the middle, or just behind it."""
    return tuple(ceil((n_layers + 1) * i / (n_memories + 1)) for i in range(1, n_memories + 1))


def table1_id(row: Row) -> str:
    """Experiment of a row of table 1."""
    return f"depth/d{row['dim']}_l{row['layers']}_m{row['memories']}"


BASE, WITHOUT, JOINED = "ablation/base", "ablation/none", "ablation/joined"
POSITION, KEYS, HEADS, TOPK = 5, 512, 4, 32  # of the ablation model
GROWN_LIKE = "depth/d1024_l12_m1"
WIDER, DEEPER = "depth/wider", "depth/deeper"
# Whose forward passes are timed, the first one first, beside what the paper compares it with.
TIMED = (
    GROWN_LIKE, "depth/d1024_l12_m0", "depth/d1024_l24_m0", "depth/d1024_l12_m2", "depth/d1024_l16_m0",
    "depth/d1024_l16_m1", "depth/d1024_l24_m1",
)  # fmt: skip
# What a deviation changes: at cpu alone, since the larger profiles do as the paper does.
POST_NORM, VALUE_RATE = "undone/post_norm", "undone/value_rate"


def keys_id(n_keys: int, batch_norm: bool = True) -> str:
    """Experiment of half a row of table 2."""
    if n_keys == KEYS and batch_norm:
        return BASE
    return f"ablation/keys{n_keys}{'' if batch_norm else '_no_bn'}"


def position_id(position: int) -> str:
    """Experiment of a row of table 3."""
    return BASE if position == POSITION else f"ablation/position{position}"


def heads_id(heads: int) -> str:
    """Experiment with so many heads."""
    return BASE if heads == HEADS else f"ablation/heads{heads}"


def topk_id(topk: int) -> str:
    """Experiment with so many slots read by a head."""
    return BASE if topk == TOPK else f"ablation/topk{topk}"


def flat_id(n_keys: int) -> str:
    """Experiment with a key for every slot."""
    return f"ablation/flat{n_keys}"


# What is tried beyond the printed tables, in the paper's sizes: figures of the paper whose points are not printed.
HEADS_TRIED, TOPK_TRIED, FLAT_TRIED = (1, 2, 4, 8), (8, 16, 32, 64, 128), (128, 256)


def _table1_models() -> list[PrintedModel]:
    rows = [row for row in _FACTS.table("table1").rows if row["test_ppl"] is not None]
    depth = {"layers": 12, "dim": 1024}
    return [
        *(
            PrintedModel(
                id=table1_id(row), label=f"{row['layers']} layers of {row['dim']}, {_memories(row['memories'])}",
                layers=row["layers"], dim=row["dim"], memories=row["memories"], tables=("table1",),
            )
            for row in rows
        ),
        PrintedModel(id=WIDER, label="12 layers of 1024, no memory, wider feed-forward layers", grown="d_ff", **depth),
        PrintedModel(id=DEEPER, label="more layers of 1024, no memory", grown="n_layers", **depth),
    ]  # fmt: skip


def _memories(count: int) -> str:
    return ("no memory", "1 memory")[count] if count < 2 else f"{count} memories"


def _ablation(experiment: str, label: str, *, position: int = POSITION, **rest: Any) -> PrintedModel:
    known = {name: rest.pop(name) for name in ("tables", "small_text", "undone", "joins") if name in rest}
    return PrintedModel(
        id=experiment,
        label=f"6 layers, {label}",
        layers=6,
        dim=512,
        memories=(position,),
        changes=rest,
        **known,
    )


def _ablation_models() -> list[PrintedModel]:
    none = PrintedModel(id=WITHOUT, label="6 layers, no memory", layers=6, dim=512)
    models = [
        none,
        _ablation(BASE, f"memory in layer {POSITION}", tables=("table2_batchnorm", "table3_position")),
    ]
    for row in _FACTS.table("table2_batchnorm").rows:
        for batch_norm in (True, False):
            label = f"{row['row']} slots{'' if batch_norm else ', no batch norm'}"
            changes = {"n_keys": row["n_keys"], "batch_norm": batch_norm}
            name = keys_id(row["n_keys"], batch_norm)
            models.append(_ablation(name, label, tables=("table2_batchnorm",), **changes))
    for row in _FACTS.table("table3_position").rows:
        position = row["position"]
        label = f"memory in layer {position}"
        models.append(_ablation(position_id(position), label, position=position, tables=("table3_position",)))
    models += [_ablation(heads_id(n), f"{n} head{'s' * (n > 1)}", n_heads=n) for n in HEADS_TRIED]
    models += [_ablation(topk_id(k), f"k = {k}", topk=k) for k in TOPK_TRIED]
    models += [_ablation(flat_id(n), f"{n**2:,} flat keys", n_keys=n, flat=True) for n in FLAT_TRIED]
    models.append(_ablation(JOINED, f"memory and feed-forward layer in layer {POSITION}", joins=True))
    small = {"id": "small_text/none", "label": "6 layers, no memory, short text", "small_text": True}
    models.append(replace(none, **small))
    models.append(_ablation("small_text/base", f"memory in layer {POSITION}, short text", small_text=True))
    models.append(_ablation(POST_NORM, "norm after each sub-layer", undone={"norm_position": "post"}))
    models.append(_ablation(VALUE_RATE, "values at the paper's rate", undone={"value_lr": 1e-3}))
    found: dict[str, PrintedModel] = {}
    for model in models:
        found.setdefault(model.id, model)  # the base model stands in several sweeps
    return list(found.values())


MODELS: Mapping[str, PrintedModel] = {model.id: model for model in (*_table1_models(), *_ablation_models())}


# --- language models of a profile ----------------------------------------------------------------------------


def trunk(model: PrintedModel, budget: Mapping[str, Any]) -> TrunkConfig:
    """A printed model in the sizes of a budget of the facts."""
    sizes = budget["sizes"]
    n_layers, d_model = sizes["layers"][model.layers], sizes["dims"][model.dim]
    places = model.memories if isinstance(model.memories, tuple) else spread(n_layers, model.memories)
    memory = replace(MemoryConfig(key_dim=sizes["key_dim"]), **model.changes)
    memory = replace(
        memory, n_keys=memory.n_keys // sizes["n_keys_over"], topk=memory.topk // sizes["topk_over"]
    )
    config = TrunkConfig(
        n_layers=n_layers, d_model=d_model, n_heads=sizes["heads"][model.dim], d_ff=4 * d_model, memories=places,
        memory=memory if places else MemoryConfig(), norm_position=budget["norm_position"],
    )  # fmt: skip
    if model.grown:
        config = _grown(config, model.grown, n_parameters(trunk(MODELS[GROWN_LIKE], budget)))
    return config


@cache
def n_parameters(config: TrunkConfig, *, vocab_size: int = 1, max_len: int = 1) -> int:
    """Parameters of a model, made without numbers; embeddings and positions count as often as they are asked for."""
    with torch.device("meta"):
        model = build_model(config, vocab_size=vocab_size, max_len=max_len)
    return sum(parameter.numel() for parameter in model.parameters())


def _grown(config: TrunkConfig, name: str, wanted: int) -> TrunkConfig:
    """The model with one size raised until it has the wanted number of parameters, as nearly as steps of 1 allow."""
    size = getattr(config, name)
    first, second = (n_parameters(replace(config, **{name: size + step})) for step in (0, 1))
    return replace(config, **{name: size + round((wanted - first) / (second - first))})


def _text_config(model: PrintedModel, budget: Mapping[str, Any]) -> TextRunConfig:
    budget = {**budget, **model.undone}
    task, training = model.id.split("/")[0], {**budget["training"], **model.undone}
    text = budget["text"] | (budget["small_text"] if model.small_text else {})
    make = JoinedRunConfig if model.joins else TextRunConfig
    return make(
        text=TextConfig(**text),
        model=trunk(model, budget),
        training=TrainingConfig(
            max_steps=training["steps"][task],
            batch_size=training["n_rows"] * training["block"],
            optimizer="adam",
            betas=(0.9, 0.98),
            lr=training["lr"][task] * training["warmup_steps"] ** 0.5,  # lr is the highest rate
            schedule="inverse_sqrt",
            warmup_steps=training["warmup_steps"],
            eval_every=training["evaluate_every"],
            precision=training.get("precision", "fp32"),
        ),
        n_rows=training["n_rows"],
        block=training["block"],
        value_lr=training["value_lr"],
    )


def _text_share(config: TextRunConfig) -> str:
    """Text and size of the model, which are not the paper's, and how much was read."""
    model, steps = config.model, config.training.max_steps
    seen = steps * config.training.batch_size
    return (
        f"{config.text.corpus}, {model.n_layers} layers of width {model.d_model}; {steps:,} updates, {seen:,} tokens; "
        "the paper's number of updates is not known to us"
    )


def _text_experiment(model: PrintedModel) -> Experiment:
    budgets = {
        profile: budget
        for profile, budget in _FACTS.budgets["text"].items()
        if model.id.split("/")[0] in budget["tasks"] and model.id not in budget.get("without", ())
    }
    return Experiment(
        id=model.id,
        task=model.id.split("/")[0],
        label=model.label,
        tables=model.tables,
        configs={profile: _text_config(model, budget) for profile, budget in budgets.items()},
        seeds={
            profile: budget.get("more_seeds", {}).get(model.id, budget["seeds"])
            for profile, budget in budgets.items()
        },
        build=build_joined if model.joins else build_text,
        share=_text_share,
    )


# --- facts to be recalled ------------------------------------------------------------------------------------


def facts_id(n_facts: int, model: str) -> str:
    """Experiment with so many facts."""
    return f"facts/{n_facts}_{model}"


def facts_compared(profile: str = BOOK_PROFILE) -> tuple[int, list[str]]:
    """The number of facts with which a profile trains the most models, and those models."""
    return max(_FACTS.budgets["facts"][profile]["models"].items(), key=lambda item: len(item[1]))


def facts_sizes(n_facts: int, kind: str, *, profile: str = BOOK_PROFILE) -> tuple[int, ...]:
    """Sub-keys in a codebook of the memories of a kind, "keys" or "flat", that so many facts are trained with."""
    models = _FACTS.budgets["facts"][profile]["models"][n_facts]
    sizes = [model.removeprefix(kind) for model in models if model.startswith(kind)]
    return tuple(sorted(int(size) for size in sizes if size.isdigit()))


def facts_swept(profile: str = BOOK_PROFILE) -> str:
    """The model with a memory that a profile trains with the most numbers of facts."""
    models = [m for its in _FACTS.budgets["facts"][profile]["models"].values() for m in its]
    return max((m for m in models if m.startswith("keys")), key=models.count)


def facts_slots(model: str) -> int:
    """Slots of "keys<n>", "flat<n>" or "keys<n>_no_bn", and those of the memory whose parameters "wide<n>" has."""
    return int(model.removesuffix("_no_bn")[4:]) ** 2


def facts_amounts(model: str, *, profile: str = BOOK_PROFILE) -> tuple[int, ...]:
    """Numbers of facts that a model is trained with."""
    models = _FACTS.budgets["facts"][profile]["models"]
    return tuple(sorted(n_facts for n_facts, its in models.items() if model in its))


def _facts_trunk(model: str, budget: Mapping[str, Any]) -> TrunkConfig:
    """The trunk of "none", "keys<n>", "flat<n>", "keys<n>_no_bn", or "wide<n>" with the parameters of "keys<n>"."""
    without = TrunkConfig(**budget["model"])
    if model == "none":
        return without
    if model.startswith("wide"):
        return _grown(without, "d_ff", n_parameters(_facts_trunk(model.replace("wide", "keys"), budget)))
    kind, batch_norm = model.removesuffix("_no_bn"), not model.endswith("_no_bn")
    memory = MemoryConfig(
        n_keys=int(kind[4:]), flat=kind.startswith("flat"), batch_norm=batch_norm, **budget["memory"]
    )
    return replace(without, memories=(without.n_layers,), memory=memory)


def _facts_config(n_facts: int, model: str, budget: Mapping[str, Any]) -> FactsConfig:
    training = budget["training"]
    steps = round(training["draws_per_fact"] * n_facts / training["facts_per_update"])
    per_sequence = budget["facts_per_sequence"]
    return FactsConfig(
        facts=KeyValueFacts(n_facts=n_facts, facts_per_sequence=per_sequence, **budget["task"]),
        model=_facts_trunk(model, budget),
        training=TrainingConfig(
            max_steps=steps,
            batch_size=training["facts_per_update"] // per_sequence,
            optimizer="adam",
            betas=(0.9, 0.98),
            lr=training["lr"] * training["warmup_steps"] ** 0.5,
            schedule="inverse_sqrt",
            warmup_steps=training["warmup_steps"],
            eval_every=max(1, steps // training["evaluations"]),
        ),
        value_lr=training["value_lr"],
    )


FACTS_LABELS: Mapping[str, Callable[[str], str]] = {
    "none": lambda size: "no memory",
    "wide": lambda size: f"no memory, as many parameters as with {int(size) ** 2:,} slots",
    "keys": lambda size: f"{int(size) ** 2:,} slots",
    "flat": lambda size: f"{int(size) ** 2:,} slots, flat keys",
}


def facts_label(model: str) -> str:
    """For people."""
    kind = model.removesuffix("_no_bn")
    return FACTS_LABELS[kind[:4]](kind[4:]) + ", no batch norm" * (kind != model)


def _facts_experiments() -> list[Experiment]:
    budgets = _FACTS.budgets["facts"]
    found: dict[tuple[int, str], dict[str, Mapping[str, Any]]] = {}
    for profile, budget in budgets.items():
        for n_facts, models in budget["models"].items():
            for model in models:
                found.setdefault((n_facts, model), {})[profile] = budget
    return [
        Experiment(
            id=facts_id(n_facts, model),
            task="facts",
            label=f"{n_facts:,} facts, {facts_label(model)}",
            tables=(),
            configs={p: _facts_config(n_facts, model, budget) for p, budget in its.items()},
            seeds={profile: budget["seeds"] for profile, budget in its.items()},
            build=build_facts,
            share=_facts_share,
        )
        for (n_facts, model), its in found.items()
    ]


def _facts_share(config: FactsConfig) -> str:
    draws = config.training.max_steps * config.training.batch_size * config.facts.facts_per_sequence
    return f"{draws:,} facts drawn; a task of ours"


EXPERIMENTS = (*(_text_experiment(model) for model in MODELS.values()), *_facts_experiments())
