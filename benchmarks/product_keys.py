"""Speed and memory of a product-key memory, against the package `product-key-memory`, flat keys and feed-forward layers.

Width 512, 4 heads, 32 slots a head, queries of 256 numbers, but in the rows of whole models.

- "layer": a forward and a backward pass. The package has a query network of its own (layer norm, no bias). The two sizes
  are those that have a figure to reach; the passes of the other sizes are part of their steps.
- "step": the same and the update, the values' by rows and the rest by torch's fused Adam. The package's gradient of the
  values is dense, for torch's Adam, plain or fused, or sparse, for torch's SparseAdam. To be beaten is the fused Adam:
  it is the fastest of the three, though it visits every row.
- "flat": a forward and a backward pass, with a key for every slot beside it. Nothing is asked of it.
- "flat step": the same and the update, all keys by torch's fused Adam. Nothing is asked of it either. With 262k slots,
  keys, their gradient, Adam's state, scores and their gradient take about 6.5 GB; with a million, four times that, more
  than most machines have.
- "lookup": the weighted sum of values for random slots, with a copy of as many bytes beside it, half of them read and
  half written: the ratio is the share of the copy's bandwidth, of which 0.6 is to be reached on a GPU.
- "step over slots": our step alone, on few queries. A variant's name says how many distinct rows they touch: in the
  smaller tables look-ups coincide more often, so these are fewer. The largest table is first, with 64 times the slots of
  the smallest; its step is to take at most 8 times as long, the root.
- "step over slots, fewest queries": the same on so few queries that the rows touched are nearly as many in every table.
  What grows there besides the search is the update of the sub-keys, as the root does, and what it takes to reach rows
  that lie farther apart.
- "search over slots", and with "fewest queries": the search in these steps alone, forward and backward.
- "inference": a forward pass of the chapter's language models at the sizes of profile cpu, the costs of the targets
  included, a token counted as a query. Weights are as they start and tokens drawn evenly: the amounts of work are those
  of a trained model, the rows that are read are not.

"layer" and "step" rows also say what tensors hold at most beyond parameters and the optimisers' state. The package is
optional: `pip install --no-deps product-key-memory colt5-attention local-attention einops`, its version 0.3 or later;
without it no figure against it is to be reached. The largest rows take up to 20 GB.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from attn.experiments.product_keys import CHAPTER
from attn.experiments.product_keys.concepts import drawn_inputs, touched_rows
from attn.experiments.product_keys.results import stand_in
from attn.experiments.product_keys.runs import TIMED
from attn.experiments.product_keys.speeds import (
    D_FF,
    D_MODEL,
    FEW_QUERIES,
    GROWTH,
    INFERENCE,
    KEY_DIM,
    LAYER_QUERIES,
    N_HEADS,
    SLOTS,
    STEP_QUERIES,
    TOPK,
)
from attn.experiments.product_keys.workloads import TextRunConfig, build_model
from attn.kernels import product_keys as kernels
from attn.product_keys import ProductKeyMemory, read_values, split_parameters
from attn.training import set_seed
from attn.training.sparse_optimizer import RowAdam
from attn.transformer import FeedForward
from benchmarks.reversible import peak_bytes
from benchmarks.timing import Goal, Row, main

LENGTH = 64  # of a sequence; it matters to none of them
OURS = "attn.product_keys"
PACKAGE = "product-key-memory"
ADAM, FUSED, SPARSE = (f"{PACKAGE}, {name}" for name in ("Adam", "fused Adam", "SparseAdam"))
FLAT = "flat keys"
HAS_PACKAGE = find_spec("product_key_memory") is not None
# Figures to reach, by row, against the package.
PASS = Goal(PACKAGE, 1.15, default_heap=1.6)
AGAINST_PACKAGE = {
    "layer, 16k slots": PASS,
    "layer, 262k slots": PASS,
    "step, 262k slots": Goal(FUSED, 1.7, default_heap=3),
}
MEMORY_GOALS = {"step, 262k slots": Goal(FUSED, 1), "step, 1M slots": Goal(FUSED, 1)}

Variants = Mapping[str, Callable[[], object]]


def ours(n_keys: int, **settings) -> ProductKeyMemory:
    """The book's layer."""
    sizes = {"d_model": D_MODEL, "n_keys": n_keys, "topk": TOPK, "key_dim": KEY_DIM, "n_heads": N_HEADS}
    return ProductKeyMemory(**(sizes | settings))


def packages(n_keys: int, *, sparse: bool = False) -> nn.Module:
    """The package's layer of the same sizes; its `dim_head` is half a key."""
    from product_key_memory import PKM

    module = PKM(dim=D_MODEL, heads=N_HEADS, num_keys=n_keys, topk=TOPK, dim_head=KEY_DIM // 2)
    if module.keys.shape != (N_HEADS, n_keys, 2, KEY_DIM // 2):
        raise ImportError(f"{PACKAGE} must be version 0.3 or later: this one has other sizes")
    module.values.sparse = sparse
    return module


def layer_call(module: nn.Module, n_queries: int, device: torch.device) -> Callable[[], None]:
    """Forward and backward, for inputs and a gradient of the outputs drawn once; leaves no gradient behind."""
    return step_call(module, n_queries, device, lambda module: [])


def step_call(
    module: nn.Module,
    n_queries: int,
    device: torch.device,
    optimizers: Callable[[nn.Module], Sequence[torch.optim.Optimizer]],
) -> Callable[[], None]:
    """Forward, backward and update, for inputs drawn once."""
    inputs = torch.randn(n_queries // LENGTH, LENGTH, D_MODEL, device=device)
    return step_of(module, inputs, optimizers)


def step_of(
    module: nn.Module, inputs: Tensor, optimizers: Callable[[nn.Module], Sequence[torch.optim.Optimizer]]
) -> Callable[[], None]:
    """Forward, backward and update, for these inputs [B, T, D] on their device and a gradient drawn once."""
    inputs = inputs.requires_grad_()
    gradient = torch.randn_like(inputs)
    to_step = optimizers(module.to(inputs.device))

    def step() -> None:
        module(inputs).backward(gradient)
        for optimizer in to_step:
            optimizer.step()
        inputs.grad = None
        module.zero_grad()

    return step


def adam(module: nn.Module, *, fused: bool | None = None) -> list[torch.optim.Optimizer]:
    """One for everything, as the package's page has it."""
    return [torch.optim.Adam(module.parameters(), fused=fused)]


def adam_by_rows(module: nn.Module) -> list[torch.optim.Optimizer]:
    """Ours for the values of the book's layer, torch's for those of the package's."""
    if isinstance(module, ProductKeyMemory):
        dense, values = split_parameters(module)
        return [torch.optim.Adam(dense, fused=True), RowAdam(values)]
    values = module.values.weight
    dense = [parameter for parameter in module.parameters() if parameter is not values]
    return [torch.optim.Adam(dense, fused=True), torch.optim.SparseAdam([values])]


def build_layer(device: torch.device, n_keys: int) -> Variants:
    """A forward and a backward pass."""
    set_seed(0)
    modules = {OURS: ours(n_keys)}
    if HAS_PACKAGE:
        modules[PACKAGE] = packages(n_keys)
    modules |= {
        "plain version": ours(n_keys, fused=False),
        "feed-forward layer": FeedForward(d_model=D_MODEL, d_ff=D_FF),
    }
    return {name: layer_call(module, LAYER_QUERIES, device) for name, module in modules.items()}


def build_step(device: torch.device, n_keys: int) -> Variants:
    """A whole step."""
    set_seed(0)
    steps = {name: (make(n_keys), optimizers) for name, (make, optimizers) in memories(n_keys).items()}
    steps["feed-forward layer"] = FeedForward(d_model=D_MODEL, d_ff=D_FF), partial(adam, fused=True)
    return {
        name: step_call(module, STEP_QUERIES, device, optimizers)
        for name, (module, optimizers) in steps.items()
    }


def memories(n_keys: int) -> dict[str, tuple[Callable[[int], nn.Module], Callable]]:
    """What makes each memory that a step is timed of, and its optimisers."""
    found = {OURS: (ours, adam_by_rows)}
    if HAS_PACKAGE:
        found[FUSED] = packages, partial(adam, fused=True)
        if n_keys <= SLOTS["262k"]:  # more tables of a million slots exceed most machines
            found[SPARSE] = partial(packages, sparse=True), adam_by_rows
            found[ADAM] = packages, adam
    return found


def build_flat(device: torch.device, n_keys: int) -> Variants:
    """Product keys and a key for every slot."""
    set_seed(0)
    modules = {OURS: ours(n_keys), FLAT: ours(n_keys, flat=True)}
    return {name: layer_call(module, FEW_QUERIES, device) for name, module in modules.items()}


def build_flat_step(device: torch.device, n_keys: int) -> Variants:
    """The same with their updates."""
    set_seed(0)
    modules = {OURS: ours(n_keys), FLAT: ours(n_keys, flat=True)}
    return {name: step_call(module, FEW_QUERIES, device, adam_by_rows) for name, module in modules.items()}


def grown(name: str, n_queries: int) -> str:
    """A variant of the step over slots: its size, and the distinct rows that so many queries touch."""
    sizes = {"d_model": D_MODEL, "topk": TOPK, "key_dim": KEY_DIM, "n_heads": N_HEADS}
    return f"{OURS}, {name} slots, {touched_rows(SLOTS[name], n_queries, **sizes):,} rows"


def build_growth(device: torch.device, n_queries: int) -> Variants:
    """A whole step at every size, the largest first, for the memory and the inputs whose rows `grown` counts."""
    inputs = drawn_inputs(n_queries, D_MODEL).to(device).unsqueeze(0)
    steps = {}
    for name, n_keys in reversed(SLOTS.items()):
        torch.manual_seed(0)
        steps[grown(name, n_queries)] = step_of(ours(n_keys), inputs.clone(), adam_by_rows)
    return steps


def build_search(device: torch.device, n_queries: int) -> Variants:
    """The search alone at every size, the largest first."""
    set_seed(0)
    return {
        f"search, {name} slots": search_call(ours(n_keys).keys.to(device), n_queries, device)
        for name, n_keys in reversed(SLOTS.items())
    }


def search_call(keys: nn.Module, n_queries: int, device: torch.device) -> Callable[[], None]:
    """Forward and backward of the search, for queries and a gradient of the weights drawn once."""
    query = torch.randn(n_queries, N_HEADS, KEY_DIM, device=device, requires_grad=True)
    gradient = torch.randn(n_queries, N_HEADS, TOPK, device=device)

    def search() -> None:
        keys(query).weights.backward(gradient)
        query.grad = None
        keys.zero_grad()

    return search


def build_lookup(device: torch.device, n_keys: int) -> Variants:
    """Reading values for random slots."""
    set_seed(0)
    values = torch.randn(n_keys**2, D_MODEL, device=device)
    slots = torch.randint(n_keys**2, (STEP_QUERIES, N_HEADS * TOPK), device=device)
    weights = torch.rand(slots.shape, device=device)
    source = torch.randn(slots.numel() // 2, D_MODEL, device=device)
    target = torch.empty_like(source)
    return {
        OURS: lambda: kernels.read_values(values, slots, weights),
        "copy of as many bytes": lambda: target.copy_(source),
        "plain version": lambda: read_values(values, slots, weights),
    }


def build_inference(device: torch.device) -> Variants:
    """A forward pass of each language model."""
    set_seed(0)
    return {stand_in(CHAPTER, name): inference_call(timed_config(name), device) for name in TIMED}


def timed_config(name: str) -> TextRunConfig:
    """Sizes of a language model that is timed."""
    return CHAPTER.experiment(name).config("cpu")


def inference_call(config: TextRunConfig, device: torch.device) -> Callable[[], None]:
    """Costs of as many segments at once as an evaluation reads, of tokens drawn once."""
    vocab_size = config.text.vocab_size
    model = build_model(config.model, vocab_size=vocab_size, max_len=config.block).to(device).eval()
    tokens = torch.randint(vocab_size, (config.evaluation_rows, config.block + 1), device=device)

    @torch.no_grad()
    def read() -> None:
        model(tokens[:, :-1], targets=tokens[:, 1:])

    return read


def rows() -> list[Row]:
    """Layers, steps, flat keys, look-ups, growth and whole models."""
    builds = {f"layer, {name} slots": (build_layer, LAYER_QUERIES, SLOTS[name]) for name in ("16k", "262k")}
    builds |= {f"step, {name} slots": (build_step, STEP_QUERIES, n_keys) for name, n_keys in SLOTS.items()}
    builds |= {f"flat, {name} slots": (build_flat, FEW_QUERIES, SLOTS[name]) for name in ("16k", "65k")}
    builds |= {
        f"flat step, {name} slots": (build_flat_step, FEW_QUERIES, SLOTS[name])
        for name in ("16k", "65k", "262k")
    }
    builds |= {f"lookup, {name} slots": (build_lookup, STEP_QUERIES, SLOTS[name]) for name in ("16k", "262k")}
    found = [
        _row(name, n_queries, partial(build, n_keys=n_keys))
        for name, (build, n_queries, n_keys) in builds.items()
    ]
    for what, n_queries in GROWTH.items():
        for part, build in (("step", build_growth), ("search", build_search)):
            found.append(_row(f"{part} {what}", n_queries, partial(build, n_queries=n_queries)))
    timed = timed_config(TIMED[0])
    return [*found, _row(INFERENCE, timed.evaluation_rows * timed.block, build_inference)]


def _row(name: str, n_queries: int, build: Callable[[torch.device], Variants]) -> Row:
    goals = AGAINST_PACKAGE
    if name.startswith("step over slots"):
        smallest = min(SLOTS, key=SLOTS.get)
        goals = {name: Goal(grown(smallest, n_queries), SLOTS[smallest] / max(SLOTS.values()))}
    return Row(
        name=name,
        units=n_queries,
        build=build,
        goal=goals.get(name),
        peak=peak if name.startswith(("layer,", "step,")) else None,
        memory_goal=MEMORY_GOALS.get(name),
        optional=(PACKAGE, FUSED),
    )


def peak(call: Callable[[], object]) -> int:
    """What a call holds at its peak beyond what was there, on the device that the benchmark has used."""
    return peak_bytes(call, torch.device("cuda" if torch.cuda.is_initialized() else "cpu"))


if __name__ == "__main__":
    main(rows(), module="benchmarks.product_keys", unit="queries")
