"""What a run of the Reformer's chapter is: its config, how it trains, and what is measured and kept of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from attn.attention import LearnedPositions
from attn.data.duplication import DuplicationTask
from attn.data.token_batch import TokenBatch
from attn.evaluation.language_model import scores
from attn.language_model import LanguageModel, Stack, Vocabulary
from attn.lsh_convention import PAPER, PUBLIC, Convention
from attn.reformer import FullAttention, LSHAttention, ReformerAttention
from attn.reproduction.errors import choose
from attn.reproduction.experiment import Metric, Outcome
from attn.training.config import TrainingConfig
from attn.training.language_model import SequenceWorkload
from attn.training.seeding import generator_for, set_seed
from attn.transformer import FeedForward

# Standard deviation of embeddings and positions at the start. The paper gives none; with the root mean square of
# sinusoids, 0.7, training did not leave chance within the budget.
START_STD = 0.02
# What counts as having learned the task, in share of right symbols.
SOLVED = 0.999
ROUNDS = (8, 4, 2, 1)
# What counts as attending in a round of hashing, by the name in a config.
CONVENTIONS: Mapping[str, Convention] = {"paper": PAPER, "public": PUBLIC}
_AT_ONCE = 16  # sequences in one evaluation batch


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Which attention, and by which conventions; queries and keys are shared unless said otherwise."""

    kind: str  # "full" or "lsh"
    n_rounds: int = 0  # of hashing; of no use for "full"
    shared_qk: bool = True
    unit_keys: bool = True  # keys divided by their lengths
    self_last: bool = True  # a token attends to itself only where nothing else is allowed
    convention: str = "paper"  # of hashing, out of `CONVENTIONS`
    n_buckets: int | None = None  # of hashing; None for two for each chunk
    is_scaled: bool = False  # products times E ** -0.5 with keys of unit length too

    def __post_init__(self) -> None:
        choose("kind of attention", self.kind, ("full", "lsh"))
        choose("convention", self.convention, CONVENTIONS)

    def build(self, *, d_model: int, n_heads: int, chunk_len: int) -> ReformerAttention:
        """The sub-layer."""
        scale = (d_model // n_heads) ** -0.5 if self.is_scaled else None
        sizes = {"d_model": d_model, "n_heads": n_heads, "scale": scale}
        if self.kind == "lsh":
            return LSHAttention(
                **sizes, chunk_len=chunk_len, n_rounds=self.n_rounds, n_buckets=self.n_buckets,
                convention=CONVENTIONS[self.convention],
            )  # fmt: skip
        return FullAttention(
            **sizes, shared_qk=self.shared_qk, unit_keys=self.unit_keys, self_last=self.self_last
        )

    def words(self) -> str:
        """Which attention this is, as a record's definitions say it."""
        if self.kind == "lsh":
            return f"LSH attention of {self.n_rounds} {'round' if self.n_rounds == 1 else 'rounds'}"
        sharing = "shared queries and keys" if self.shared_qk else "queries and keys apart"
        length = "keys of unit length" if self.unit_keys else "keys of any length"
        itself = (
            "to itself only where nothing else is allowed" if self.self_last else "to itself as to others"
        )
        return f"full attention, {sharing}, {length}, {itself}"


# What a trained model is evaluated with: the columns of table 2, and full attention by other conventions.
EVALUATIONS: Mapping[str, AttentionConfig] = {
    "full": AttentionConfig(kind="full"),
    **{f"lsh{rounds}": AttentionConfig(kind="lsh", n_rounds=rounds) for rounds in ROUNDS},
    "full_with_self": AttentionConfig(kind="full", self_last=False),
    "full_raw_keys": AttentionConfig(kind="full", unit_keys=False),
    "full_plain": AttentionConfig(kind="full", unit_keys=False, self_last=False),
}


@dataclass(frozen=True, kw_only=True)
class DuplicationConfig:
    """One run on sequences 0 w 0 w."""

    seq_len: int  # T, both copies and both zeros
    chunk_len: int  # m; T / m chunks
    attention: AttentionConfig
    training: TrainingConfig  # batch_size counts sequences
    vocab_size: int = 128
    n_layers: int = 1
    d_model: int = 256
    n_heads: int = 4
    d_ff: int = 256
    validation_count: int = 32  # sequences of every evaluation
    test_count: int = 64  # sequences of the final grid

    def __post_init__(self) -> None:
        if self.seq_len < 16 * self.chunk_len:
            raise ValueError(
                f"seq_len must be at least 16 chunks of chunk_len, so that hashing has something to choose from: "
                f"{16 * self.chunk_len}; got {self.seq_len}"
            )


def build_model(config: DuplicationConfig, max_len: int | None = None) -> LanguageModel:
    """The trunk with layers of the config's attention and feed-forward, embeddings and logits tied to one matrix.

    Args:
        config: or any other that has its sizes.
        max_len: of the learned positions; None for `config.seq_len`.
    """
    sizes = {"d_model": config.d_model, "n_heads": config.n_heads, "chunk_len": config.chunk_len}
    layers = [
        [config.attention.build(**sizes), FeedForward(d_model=config.d_model, d_ff=config.d_ff)]
        for _ in range(config.n_layers)
    ]
    positions = LearnedPositions(
        d_model=config.d_model, max_len=config.seq_len if max_len is None else max_len
    )
    nn.init.normal_(positions.table, std=START_STD)
    return LanguageModel(
        vocabulary=Vocabulary(vocab_size=config.vocab_size, d_model=config.d_model, std=START_STD),
        stack=Stack(layers, d_model=config.d_model),
        positions=positions,
    )


class DuplicationWorkload(SequenceWorkload):
    """Training with one attention; in the end the share of right symbols under every one of `EVALUATIONS`."""

    def __init__(self, config: DuplicationConfig, seed: int, device: torch.device) -> None:
        self.config = config
        self.task = DuplicationTask(length=config.seq_len, vocab_size=config.vocab_size)
        set_seed(seed)
        super().__init__(
            model=build_model(config).to(device),
            draw=self.task.sample,
            batch_size=config.training.batch_size,
            seed=seed,
            validation=self.draw("validation", config.validation_count).split(_AT_ONCE),
        )

    def draw(self, use: str, count: int) -> TokenBatch:
        """Sequences that depend on their use and length alone, the same for all seeds and models."""
        return self.task.sample(count, generator_for(0, "duplication", use, self.config.seq_len))

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """The grid's row."""
        model.eval()
        solved = next((entry["step"] for entry in history if entry["accuracy"] >= SOLVED), None)
        metrics = {f"accuracy_{name}": self._accuracy(model, name) for name in EVALUATIONS}
        if solved is not None:
            metrics["steps_to_solve"] = Metric(
                float(solved),
                "updates",
                f"until an evaluation with the training's attention reached {SOLVED:g}",
            )
        return Outcome(metrics)

    def _accuracy(self, model: nn.Module, name: str) -> Metric:
        count = self.config.test_count
        batches = self.draw("test", count).split(_AT_ONCE)
        set_seed(0)  # rotations are drawn from torch's default generator
        attention = EVALUATIONS[name]
        if attention.kind == "full":
            attention = replace(attention, shared_qk=self.config.attention.shared_qk)
        with _attending(model, self.config, attention):
            right, _ = scores(model, [batch.to(self.device) for batch in batches])
        how = attention.words()
        if attention.kind == "lsh":
            how += f", new rotations for every {_AT_ONCE} sequences"
            if not self.config.attention.shared_qk:
                how += ", keys by the weights of the queries, which were trained apart"
        return Metric(
            right,
            "share of symbols",
            f"argmax of the logits equals the symbol, over the second w of {count} new sequences; {how}",
        )


@contextmanager
def _attending(model: LanguageModel, config: DuplicationConfig, attention: AttentionConfig) -> Iterator[None]:
    """The model with another attention over the same weights, for a while.

    Where queries and keys were trained apart and the other attention shares them, keys take the weights of queries.
    """
    layers = model.stack.layers
    own = [sublayers[0] for sublayers in layers]
    for sublayers, trained in zip(layers, own, strict=True):
        other = attention.build(d_model=config.d_model, n_heads=config.n_heads, chunk_len=config.chunk_len)
        state = trained.state_dict()
        if other.shared_qk and not trained.shared_qk:
            query, _, value = state["projection.weight"].chunk(3)
            state["projection.weight"] = torch.cat([query, value])
        other.load_state_dict(state)
        sublayers[0] = other.to(next(trained.parameters()).device).eval()
    try:
        yield
    finally:
        for sublayers, trained in zip(layers, own, strict=True):
            sublayers[0] = trained


# --- by the conventions of public code ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CodeConfig(DuplicationConfig):
    """One run by the conventions of public code, in evaluation too: what the columns of table 2 mean in it."""

    full: AttentionConfig
    hashed: AttentionConfig  # but for the rounds


class CodeWorkload(DuplicationWorkload):
    """As its parent, but `EVALUATIONS` mean what the code whose conventions these are takes them for."""

    config: CodeConfig

    def _accuracy(self, model: nn.Module, name: str) -> Metric:
        count = self.config.test_count
        batches = self.draw("test", count).split(_AT_ONCE)
        set_seed(0)  # rotations are drawn from torch's default generator
        attention = code_evaluation(self.config, name)
        with _attending(model, self.config, attention):
            right, _ = scores(model, [batch.to(self.device) for batch in batches])
        return Metric(
            right,
            "share of symbols",
            f"argmax of the logits equals the symbol, over the second w of {count} new sequences; "
            f"{_code_words(attention)}",
        )


def code_evaluation(config: CodeConfig, name: str) -> AttentionConfig:
    """What one of `EVALUATIONS` means: full attention and hashing by the code, the other kinds of full but rescaled."""
    attention = EVALUATIONS[name]
    if attention.kind == "lsh":
        return replace(config.hashed, n_rounds=attention.n_rounds)
    return config.full if name == "full" else replace(attention, is_scaled=config.full.is_scaled)


_ATTENDED = {
    "paper": "among keys of one bucket, a pair counted once",
    "public": "among all keys of the window, a pair counted as often as it meets, rounds looking back at each other",
}


def _code_words(attention: AttentionConfig) -> str:
    """Which attention this is, with what `AttentionConfig.words` takes for granted."""
    said = attention.words()
    if attention.kind == "lsh":
        said += f" {_ATTENDED[attention.convention]}, {attention.n_buckets} buckets a round"
        said += f", new rotations for every {_AT_ONCE} sequences"
    if attention.is_scaled:
        said += ", products divided by the root of a head's width"
    return said
