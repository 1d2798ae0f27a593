"""Where a trained encoder looks from the word "it", in two sentences whose last word decides what "it" is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attn.data.tokenisation import EOS, Tokeniser
from attn.experiments.transformer.workloads import PairsWorkload
from attn.reproduction.experiment import Outcome
from attn.transformer import Transformer

PRONOUN = "it"
# By the noun that "it" stands for.
SENTENCES = {
    "dog": "The dog did not cross the street because it was too tired.",
    "street": "The dog did not cross the street because it was too wide.",
}


class CaptionsWorkload(PairsWorkload):
    """Translation from English that also keeps the encoder's maps on `SENTENCES`."""

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """As of `PairsWorkload`, with the maps by noun."""
        found = super().outcome(model, history)
        if not isinstance(model, Transformer):
            return found
        with nullcontext() if self.average is None else self.average.applied():
            maps = pronoun_maps(model, self.corpus.tokeniser)
        return Outcome(found.metrics, {**found.artifact, **maps})


@torch.no_grad()
def pronoun_maps(model: Transformer, tokeniser: Tokeniser) -> dict[str, np.ndarray]:
    """Self-attention of every encoder layer and head on `SENTENCES`, in half precision, and their sub-words.

    Returns:
        By noun `pronoun_{noun}` [N, H, S, S] and `pronoun_{noun}_tokens` [S].
    """
    device = next(model.parameters()).device
    arrays = {}
    for noun, sentence in SENTENCES.items():
        source = torch.tensor([[*tokeniser.encode(sentence), EOS]], device=device)
        maps: Sequence[Tensor] = model.attention_maps(source, source[:, :1]).encoder
        arrays[f"pronoun_{noun}"] = torch.cat(list(maps)).half().cpu().numpy()
        arrays[f"pronoun_{noun}_tokens"] = np.array(tokeniser.pieces(source[0].tolist()))
    return arrays


class Looks(NamedTuple):
    """Weights from the pronoun to each noun [N, H], by the noun that it stands for."""

    to_dog: Mapping[str, np.ndarray]
    to_street: Mapping[str, np.ndarray]


def looks(arrays: Mapping[str, np.ndarray]) -> Looks:
    """What `pronoun_maps` kept, read at the pronoun: a word's weight is the sum over its sub-words."""

    def to(noun: str) -> dict[str, np.ndarray]:
        found = {}
        for meant in SENTENCES:
            tokens = arrays[f"pronoun_{meant}_tokens"].tolist()
            rows = arrays[f"pronoun_{meant}"].astype(float)[:, :, pieces_of(tokens, PRONOUN)].mean(2)
            found[meant] = rows[..., pieces_of(tokens, noun)].sum(-1)
        return found

    return Looks(*(to(noun) for noun in ("dog", "street")))


def pieces_of(tokens: Sequence[str], word: str) -> list[int]:
    """Places of the sub-words of the first occurrence of a word.

    Args:
        tokens: sub-words, the first of each word marked by "▁".
        word: as it stands between spaces.

    Raises:
        ValueError: if the word does not occur.
    """
    starts = [i for i, token in enumerate(tokens) if token.startswith("▁")]
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        if "".join(tokens[start:end]) == f"▁{word}":
            return list(range(start, end))
    raise ValueError(f"word must be one of the sentence {' '.join(tokens)!r}; got {word!r}")
