"""Workload of language models that read a text segment by segment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from attn.data.language_text import LanguageText
from attn.data.text import TrainingSegments, evaluation_segments
from attn.data.token_batch import TokenBatch
from attn.evaluation.text import text_bits
from attn.training.loop import BatchLoss


class Piece(NamedTuple):
    """Some rows of an update's segment, and which rows."""

    batch: TokenBatch
    key: str  # of what these rows carry


class TextWorkload:
    """Training on a text in order, what the model carries included; validation in bits per token.

    The text lies in `n_rows` stretches side by side. Every update reads the next `block` tokens of each, with the state
    that the update before left there. Where the model carries none, it reads every segment from its start.

    A run that goes on from a checkpoint has to be cut into the same number of pieces as before, since each piece carries
    its own rows.

    Args:
        model: `attn.language_model.LanguageModel` or what is called like it; on its device.
        text: the splits; "train" and "valid" are used here.
        n_rows: B.
        block: T.
        seed: of the offsets of later passes.
        evaluation_rows: rows in which a split is read to be evaluated; few, so that few tokens lack what came before.
        evaluation_block: tokens read at a time then; None for `block`.
    """

    unit = "tokens"

    def __init__(
        self,
        *,
        model: nn.Module,
        text: LanguageText,
        n_rows: int,
        block: int,
        seed: int,
        evaluation_rows: int = 8,
        evaluation_block: int | None = None,
    ) -> None:
        self.model, self.text = model, text
        self.device = next(model.parameters()).device
        self.segments = TrainingSegments(text.splits["train"], batch_size=n_rows, block=block, seed=seed)
        self.evaluation_rows = evaluation_rows
        self.evaluation_block = block if evaluation_block is None else evaluation_block
        self._carried: dict[str, Any] = {}

    def batch(self, step: int, part: int, n_parts: int) -> Piece:
        """Every `n_parts`-th row of update `step`, from row `part` on."""
        return Piece(self.segments.at(step, part, n_parts).to(self.device), f"{part} of {n_parts}")

    def loss(self, model: nn.Module, batch: Piece) -> BatchLoss:
        """Nats of the piece's tokens; the state for its next segment is kept.

        Raises:
            ValueError: if the piece goes on with a text whose state is that of other pieces.
        """
        segment, key = batch
        state = None if segment.is_start else self._carried.get(key)
        if not segment.is_start and self._carried and key not in self._carried:
            raise ValueError(
                f"the pieces of a batch must stay the same within a text, since rows carry a state; got piece {key} "
                f"after {', '.join(sorted(self._carried))}: keep grad_accum_steps times processes as it was"
            )
        nats, state = model(segment.tokens, state, targets=segment.targets)
        if state is not None:
            self._carried[key] = state
        return BatchLoss((nats * segment.scored).sum(), segment.n_scored, segment.n_scored)

    def state_dict(self) -> dict[str, Any]:
        """What the rows carry."""
        return {key: list(state) for key, state in self._carried.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what `state_dict` gave."""
        self._carried = {
            key: tuple(None if part is None else part.to(self.device) for part in parts)
            for key, parts in state.items()
        }

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Bits per token of the validation text."""
        return {"bits_per_token": self.bits(model, "valid")}

    def bits(self, model: nn.Module, split: str) -> float:
        """Mean bits per token of a split, read in order."""
        return text_bits(model, self.read(split))

    def read(self, split: str) -> Iterator[TokenBatch]:
        """A split in order, as it is evaluated."""
        tokens: Tensor = self.text.splits[split]
        segments = evaluation_segments(tokens, batch_size=self.evaluation_rows, block=self.evaluation_block)
        return (segment.to(self.device) for segment in segments)

    def data_checksums(self) -> Mapping[str, str]:
        """sha256 of the files, of the tokeniser and of the tokens."""
        return dict(self.text.checksums)
