"""Time and memory of the five models of table 3 of the Reformer's paper, over length and over depth.

One call is a forward and a backward pass of a stack of attention and feed-forward, without embeddings and dropout.
Rows over length are of long models, in which attention is largest; rows over depth of wide and short ones, in which the
feed-forward layer is. Full attention keeps its weights, as the paper's formulas take it to, and does not use torch's
fused kernel, which keeps none; hashing is `attn.kernels.lsh`.

Memory is the most that a call holds beside parameters and the gradients of layers that are done, for which the table has
no term: what a plain model's parameters get is dropped as it comes, and of a reversible one's, which come all at once in
the end, those of all layers but one are subtracted.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from attn.experiments.reformer.model_types import SIZES, VALUES, build, kinds, row_name
from attn.reversible import ReversibleStack
from attn.training import set_seed
from benchmarks.reversible import peak_bytes
from benchmarks.timing import Row, main


class Step:
    """A forward and a backward pass of one model; leaves no gradient behind.

    Args:
        model: from inputs to outputs [b, l, dmodel], or to these and a state.
        inputs: [b, l, dmodel].
    """

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self.model, self.inputs = model, inputs.requires_grad_()
        self.gradient = torch.randn_like(inputs)
        self.done = _bytes(model.blocks[1:]) if isinstance(model, ReversibleStack) else 0
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(_drop)

    def __call__(self) -> None:
        """The pass."""
        result = self.model(self.inputs)
        (result[0] if isinstance(result, tuple) else result).backward(self.gradient)
        self.inputs.grad = None


def _bytes(modules: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in modules.parameters())


def _drop(parameter: Tensor) -> None:
    parameter.grad = None


def held(step: Step) -> int:
    """Peak of a step, see above."""
    return peak_bytes(step, step.inputs.device) - step.done


def steps(device: torch.device, sizes: Mapping[str, int]) -> Mapping[str, Callable[[], None]]:
    """A step of each model, by its name in the table, from its last row, the Reformer, to its first."""
    set_seed(0)
    shape = (sizes["b"], sizes["l"], sizes["dmodel"])
    return {
        kind: Step(build(kind, sizes).to(device), torch.randn(shape, device=device))
        for kind in reversed(kinds())
    }


def rows() -> list[Row]:
    """Each length, then each depth."""
    return [
        Row(
            name=row_name(size, value),
            units=sizes["b"] * sizes["l"],
            build=partial(steps, sizes=sizes),
            peak=held,
        )
        for size, values in VALUES.items()
        for value in values
        for sizes in ({**SIZES[size], size: value},)
    ]


if __name__ == "__main__":
    main(rows(), module="benchmarks.model_types", unit="tokens")
