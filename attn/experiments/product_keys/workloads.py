"""What a run of the chapter on product-key memory is: its config, its model, how it trains, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attn.attention import LearnedPositions, MultiHeadAttention
from attn.data.key_value_facts import KeyValueFacts
from attn.data.language_text import TextConfig
from attn.data.token_batch import TokenBatch
from attn.evaluation.language_model import scores
from attn.evaluation.text import text_bits
from attn.experiments.product_keys import inside
from attn.experiments.product_keys.texts import load, words
from attn.language_model import LanguageModel, Stack, State, Vocabulary
from attn.product_keys import ProductKeyMemory, check_room, split_parameters
from attn.reproduction.experiment import Metric, Outcome
from attn.training.config import TrainingConfig
from attn.training.language_model import SequenceWorkload
from attn.training.seeding import set_seed
from attn.training.text import TextWorkload
from attn.transformer import FeedForward

# Facts in one evaluation batch.
_AT_ONCE = 2048


# --- the model -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Sizes of a memory; the defaults are the paper's."""

    n_keys: int = 512  # sub-keys in a codebook: the memory has n_keys ** 2 slots
    topk: int = 32
    key_dim: int = 512
    n_heads: int = 4
    batch_norm: bool = True  # of the queries
    flat: bool = False  # a key for every slot, in place of two codebooks


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """A causal Transformer in some of whose layers a memory stands in place of the feed-forward sub-layer.

    Raises:
        ValueError: for a memory in a layer that does not exist.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_ff: int
    memories: tuple[int, ...] = ()  # layers with a memory, from 1
    memory: MemoryConfig = MemoryConfig()
    norm_position: str = "post"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if any(not 1 <= layer <= self.n_layers for layer in self.memories):
            raise ValueError(f"memories must be layers from 1 to {self.n_layers}; got {self.memories}")


class CausalAttention(nn.Module):
    """Multi-head attention as a sub-layer of the trunk: each position sees itself and those before it."""

    def __init__(self, *, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(d_model=d_model, n_heads=n_heads)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        return self.attention(inputs, is_causal=True).output


class NormedStack(Stack):
    """A stack with a layer norm before its first layer too, as the public code has it on embeddings."""

    def __init__(self, layers: Iterable[Iterable[nn.Module]], *, d_model: int, **around: Any) -> None:
        super().__init__(layers, d_model=d_model, **around)
        self.first = nn.LayerNorm(d_model)

    def forward(self, hidden: Tensor, state: State = None) -> tuple[Tensor, State]:
        """As `Stack.forward`."""
        return super().forward(self.first(hidden), state)


def build_model(config: TrunkConfig, *, vocab_size: int, max_len: int) -> LanguageModel:
    """The trunk with learned positions, its output matrix tied to the embedding.

    Embeddings and positions start with the same spread, as in the public code.
    """
    sizes = {"d_model": config.d_model}
    layers = [
        [CausalAttention(n_heads=config.n_heads, **sizes), _second_sublayer(config, layer)]
        for layer in range(1, config.n_layers + 1)
    ]
    positions = LearnedPositions(max_len=max_len, **sizes)
    nn.init.normal_(positions.table, std=config.d_model**-0.5)
    return LanguageModel(
        vocabulary=Vocabulary(vocab_size=vocab_size, **sizes),
        stack=NormedStack(layers, norm_position=config.norm_position, dropout=config.dropout, **sizes),
        positions=positions,
        dropout=config.dropout,
    )


def _second_sublayer(config: TrunkConfig, layer: int) -> nn.Module:
    if layer not in config.memories:
        return FeedForward(d_model=config.d_model, d_ff=config.d_ff)
    memory = config.memory
    return ProductKeyMemory(
        d_model=config.d_model, n_keys=memory.n_keys, topk=memory.topk, key_dim=memory.key_dim,
        n_heads=memory.n_heads, batch_norm=memory.batch_norm, flat=memory.flat,
    )  # fmt: skip


def memories(model: LanguageModel) -> dict[int, ProductKeyMemory]:
    """The memories of a model by layer, from 1."""
    return {
        number: sublayers[1]
        for number, sublayers in enumerate(model.stack.layers, start=1)
        if isinstance(sublayers[1], ProductKeyMemory)
    }


def parameter_groups(model: nn.Module, value_lr: float) -> list[dict[str, Any]]:
    """Values by rows at a constant rate, everything else by the optimiser of the config (Sec. 4.1)."""
    dense, values = split_parameters(model)
    table = {"optimizer": "row_adam", "lr": value_lr, "schedule": "constant", "betas": (0.9, 0.999)}
    return [{"params": dense}, *([{"params": values, **table}] if values else [])]


def _moved(model: LanguageModel, device: torch.device) -> LanguageModel:
    """The model on its device; one whose memories have no room there is refused in a sentence."""
    check_room(model, device)
    return model.to(device)


# --- a language model ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TextRunConfig:
    """One run on a text."""

    text: TextConfig
    model: TrunkConfig
    training: TrainingConfig  # batch_size counts tokens: n_rows * block
    n_rows: int  # B
    block: int  # T
    value_lr: float = 1e-3  # of the values, constant
    evaluation_rows: int = 64

    def __post_init__(self) -> None:
        if self.training.batch_size != self.n_rows * self.block:
            raise ValueError(
                f"training.batch_size must be n_rows * block = {self.n_rows * self.block} tokens; got "
                f"{self.training.batch_size}"
            )


class MemoryTextWorkload(TextWorkload):
    """Training on a text; in the end costs of all splits, use of the memories, and speed."""

    def __init__(self, config: TextRunConfig, seed: int, device: torch.device) -> None:
        self.config, self.seed = config, seed
        text = load(config.text)
        set_seed(seed)
        model = build_model(config.model, vocab_size=text.vocab_size, max_len=config.block)
        super().__init__(
            model=_moved(model, device), text=text, n_rows=config.n_rows, block=config.block, seed=seed,
            evaluation_rows=config.evaluation_rows,
        )  # fmt: skip

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `parameter_groups`."""
        return parameter_groups(self.model, self.config.value_lr)

    def training_part(self) -> list[TokenBatch]:
        """Segments of the training text that the run has read, evenly spaced, as long as the validation text."""
        read = self._first_pass()
        wanted = max(1, len(self.text.splits["valid"]) // self.config.training.batch_size)
        steps = sorted({1 + index * read // wanted for index in range(wanted)})
        return [self.segments.at(step).to(self.device) for step in steps]

    def _first_pass(self) -> int:
        """Updates within the first pass over the training text."""
        return min(self.config.training.max_steps, self.segments.steps_per_pass)

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """Costs, use and exactness of the memories, speed; and for the first seed what fires for which words."""
        model.eval()
        parts = {
            "train": self.training_part(),
            **{split: list(self.read(split)) for split in ("valid", "test")},
        }
        metrics = {}
        for split, segments in parts.items():
            metrics |= self._cost(split, segments, text_bits(model, segments))
        metrics["unigram_perplexity_test"] = self._unigram("test")
        segments = parts["valid"]
        metrics["inference_tokens_per_second"] = inside.inference_speed(model, segments[0])
        found = memories(model)
        arrays = {}
        if found:
            used = inside.use_of(model, segments, vocab_size=self.text.vocab_size)
            for layer, memory in found.items():
                metrics |= inside.use_metrics(used[layer], layer, self._tokens("valid", segments))
                metrics |= inside.search_metrics(used[layer], memory, layer)
                if self.seed == 0:
                    arrays |= inside.use_arrays(used[layer], memory, layer, self._pieces())
        return Outcome(metrics, arrays)

    def _cost(self, split: str, segments: Sequence[TokenBatch], bits: float) -> dict[str, Metric]:
        size = self.text.bytes_per_token.get(split, 1.0)  # a generated text has one byte a token
        where = f"after training, of the token after each of {self._tokens(split, segments)}"
        per_byte = f"mean cost in bits per subword over the split's {size:.4f} bytes a subword"
        return {
            f"perplexity_{split}": Metric(2**bits, "per subword", f"2 to the mean cost in bits per subword, {where}"),
            f"bits_per_byte_{split}": Metric(bits / size, "bits per byte", f"{per_byte}, {where}"),
        }  # fmt: skip

    def _tokens(self, split: str, segments: Sequence[TokenBatch]) -> str:
        """Which tokens of a split a model reads in `segments`, in words."""
        rows, block = segments[0].tokens.shape
        name = {"valid": "validation", "train": "training"}.get(split, split)
        if split == "train":
            which = f"evenly spaced over the {self._first_pass():,} that training read in its first pass"
        else:
            which = "what is shorter than a segment left out"
        pieces = f"{len(segments):,} segment{'s' * (len(segments) > 1)} of {block}"
        return (
            f"{self._count(segments):,} {name} tokens: {pieces} from each of {rows} rows, {which}, each segment read "
            f"without what came before it; the rows are cut from {words(self.config.text, self.text, split)}"
        )

    def _unigram(self, split: str) -> Metric:
        """What the frequencies of the training text alone cost, on the targets that models are scored on."""
        counts = torch.bincount(self.text.splits["train"].long(), minlength=self.text.vocab_size) + 1
        targets = torch.cat([segment.targets[segment.scored] for segment in self.read(split)]).cpu()
        nats = -(counts.double() / counts.sum()).log()[targets].mean()
        return Metric(
            float(nats.exp()), "per subword",
            f"as perplexity_{split}, on the same {len(targets):,} tokens to predict, each at its frequency in "
            f"{words(self.config.text, self.text, 'train')}, one added to each of {len(counts):,} counts",
        )  # fmt: skip

    @staticmethod
    def _count(segments: Sequence[TokenBatch]) -> int:
        return sum(segment.tokens.numel() for segment in segments)

    def _pieces(self) -> Sequence[str]:
        tokeniser = self.text.tokeniser
        ids = range(self.text.vocab_size)
        return [str(index) for index in ids] if tokeniser is None else tokeniser.pieces(ids)


# --- facts to be recalled ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FactsConfig:
    """One run on key-value facts."""

    facts: KeyValueFacts
    model: TrunkConfig
    training: TrainingConfig  # batch_size counts sequences
    value_lr: float = 1e-3


class FactsWorkload(SequenceWorkload):
    """Training on drawn facts; in the end how many bits of the table the model has stored."""

    def __init__(self, config: FactsConfig, seed: int, device: torch.device) -> None:
        self.config, self.seed, self.task = config, seed, config.facts
        set_seed(seed)
        max_len = self.task.facts_per_sequence * self.task.fact_len - 1
        model = build_model(config.model, vocab_size=self.task.vocab_size, max_len=max_len)
        super().__init__(
            model=_moved(model, device), draw=self.task.sample, batch_size=config.training.batch_size, seed=seed,
            validation=self.task.all_facts().split(_AT_ONCE),
        )  # fmt: skip

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `parameter_groups`."""
        return parameter_groups(self.model, self.config.value_lr)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Recall of every fact of the table, asked alone."""
        right, nats = scores(model, self.validation)
        return {"recalled": right, "stored_bits": self.task.stored_bits(nats)}

    def outcome(self, model: nn.Module, history: Sequence[Mapping[str, Any]]) -> Outcome:
        """Bits stored of those there are, and use of the memories."""
        model.eval()
        task, training = self.task, self.config.training
        right, nats = scores(model, self.validation)
        draws = training.max_steps * training.batch_size * task.facts_per_sequence
        where = f"over all {task.n_facts:,} facts of the table, each asked alone, after {draws:,} draws"
        metrics = {
            "recalled": Metric(right, "share of facts", f"the most likely value is the right one; {where}"),
            "stored_bits": Metric(
                task.stored_bits(nats), "bits", f"{task.bits:.6g} bits of the table less what its values cost; {where}"
            ),
            "table_bits": Metric(task.bits, "bits", "facts times the base-2 logarithm of the number of values"),
            "shown": Metric(
                float(task.shown(draws).mean()), "share of facts", f"expected share that came up in {draws:,} draws"
            ),
        }  # fmt: skip
        found = memories(model)
        if found:
            used = inside.use_of(model, self.validation, vocab_size=task.vocab_size)
            for layer, memory in found.items():
                metrics |= inside.use_metrics(used[layer], layer, self._tokens())
                metrics |= inside.search_metrics(used[layer], memory, layer)
        return Outcome(metrics)

    def _tokens(self) -> str:
        """Which tokens the model reads when every fact is asked, in words."""
        count = sum(batch.tokens.numel() for batch in self.validation)
        each = self.validation[0].tokens.shape[1]
        facts = f"each of the {self.task.n_facts:,} facts"
        return f"{count:,} tokens, all but the last of the {each + 1} of {facts}, which is asked alone"
