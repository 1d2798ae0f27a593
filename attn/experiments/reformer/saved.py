"""What an update of a language model keeps for the gradient."""

from __future__ import annotations

from torch import Tensor, nn

from attn.data.token_batch import TokenBatch
from attn.experiments.reformer.complexity import peak_saved
from attn.reproduction.experiment import Metric

# What becomes of activations.
KEPT = "all activations kept, by plain autograd"
REVERSED = (
    "activations of reversible layers computed anew; buckets and random states that these layers keep count"
)


class Costs(nn.Module):
    """A language model as a function of what it reads, its targets given once."""

    def __init__(self, model: nn.Module, targets: Tensor) -> None:
        super().__init__()
        self.model, self.targets = model, targets

    def forward(self, tokens: Tensor) -> Tensor:
        """Nats of every token [B, T]."""
        return self.model(tokens, targets=self.targets)[0]


def saved_bytes(model: nn.Module, batch: TokenBatch, how: str = KEPT) -> Metric:
    """The most bytes that wait for the gradient at one time; gradients of the model are left empty.

    Args:
        model: a language model.
        batch: of an update.
        how: `KEPT` or `REVERSED`, as the model is set.
    """
    found = peak_saved(Costs(model, batch.targets), batch.tokens, count_attributes=True)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    model.zero_grad()
    count, length = batch.tokens.shape
    what = (
        "the most bytes of tensors that wait for the gradient at one time in a forward and a backward pass, memory that "
        "several share counted once, parameters and gradients aside"
    )
    sequences = f"{count} sequence{'' if count == 1 else 's'} of {length:,}"
    return Metric(float(found), "bytes", f"{what}; {how}; {sequences}, in {dtype}")
