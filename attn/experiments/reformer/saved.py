"""What an update of a language model keeps for the gradient."""

from __future__ import annotations

from torch import Tensor, nn

from attn.data.token_batch import TokenBatch
from attn.experiments.reformer.complexity import peak_saved
from attn.reproduction.experiment import Metric


class Costs(nn.Module):
    """A language model as a function of what it reads, its targets given once."""

    def __init__(self, model: nn.Module, targets: Tensor) -> None:
        super().__init__()
        self.model, self.targets = model, targets

    def forward(self, tokens: Tensor) -> Tensor:
        """Nats of every token [B, T]."""
        return self.model(tokens, targets=self.targets)[0]


def saved_bytes(model: nn.Module, batch: TokenBatch) -> Metric:
    """The most bytes that wait for the gradient at one time; gradients of the model are left empty."""
    found = peak_saved(Costs(model, batch.targets), batch.tokens)
    model.zero_grad()
    count, length = batch.tokens.shape
    how = "the most bytes that wait for the gradient at one time in a forward and a backward pass, parameters aside"
    return Metric(float(found), "bytes", f"{how}; {count} sequences of {length:,}")
