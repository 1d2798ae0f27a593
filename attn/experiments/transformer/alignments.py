"""What a recurrent model with attention keeps besides: its alignment of one sentence, as Bahdanau et al. show theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from torch import nn

from attn.data.batching import EncodedPairs
from attn.experiments.transformer.workloads import PairsWorkload
from attn.recurrent_translation import RecurrentTranslator
from attn.reproduction.experiment import Outcome


class AlignedWorkload(PairsWorkload):
    """Translation that also keeps the weights of additive attention on the sentence that Transformers keep theirs of."""

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """As of `PairsWorkload`, with `attention_cross` [1, 1, T, S] and the sub-words of both sides."""
        found = super().outcome(model, history)
        if not isinstance(model, RecurrentTranslator) or model.attention is None:
            return found
        with nullcontext() if self.average is None else self.average.applied():
            alignment = self._alignment(model)
        return Outcome(found.metrics, {**found.artifact, **alignment})

    def _alignment(self, model: RecurrentTranslator) -> dict[str, np.ndarray]:
        pairs = self.corpus.encoded["validation"]
        batch = pairs.batch(np.array([middling(pairs)]))
        device = next(model.parameters()).device
        weights = model.alignments(batch.source.to(device), batch.target_in.to(device))  # [1, T, S]
        arrays = {"attention_cross": weights[None].half().cpu().numpy()}
        for side, ids in (("source", batch.source), ("target", batch.target_in)):
            arrays[f"attention_{side}"] = np.array(self.corpus.tokeniser.pieces(ids[0].tolist()))
        return arrays


def middling(pairs: EncodedPairs) -> int:
    """Place of the first pair whose longer side is of middling length."""
    longer = pairs.lengths.max(axis=1)
    return int(np.argmax(longer == np.sort(longer)[len(longer) // 2]))
