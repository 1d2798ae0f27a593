"""Speed of greedy and beam search, with the keys and values of earlier tokens kept or computed again.

One call translates SENTENCES sources of SOURCE_LENGTH tokens, by a Transformer with random weights. No id of its
vocabulary ends a sentence, so that every search produces the same number of tokens whatever the weights are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from attn.data.tokenisation import PAD, UNK
from attn.evaluation.decoding import beam_search, greedy_search
from attn.training import set_seed
from attn.transformer import Transformer
from benchmarks.timing import Row, main

SIZES = {"vocab_size": 4000, "d_model": 128, "n_heads": 4, "d_ff": 512, "n_layers": 3}
SENTENCES, SOURCE_LENGTH = 16, 20
LENGTHS = (20, 70)  # tokens produced; the second is the greatest length with the paper's 50 extra tokens
BEAM_SIZE = 4


def build(device: torch.device, length: int) -> Mapping[str, Callable[[], Any]]:
    """Every search with and without the cache."""
    set_seed(0)
    model = Transformer(**SIZES, padding_index=PAD).to(device).eval()
    source = torch.randint(UNK + 1, SIZES["vocab_size"], (SENTENCES, SOURCE_LENGTH), device=device)
    never_ends = {"extra_length": length - SOURCE_LENGTH, "eos": SIZES["vocab_size"]}
    return {
        "greedy": lambda: greedy_search(model, source, **never_ends),
        "greedy, no cache": lambda: greedy_search(model, source, use_cache=False, **never_ends),
        f"beam {BEAM_SIZE}": lambda: beam_search(model, source, beam_size=BEAM_SIZE, **never_ends),
        f"beam {BEAM_SIZE}, no cache": lambda: beam_search(
            model, source, beam_size=BEAM_SIZE, use_cache=False, **never_ends
        ),
    }


def rows() -> list[Row]:
    """Each number of tokens."""
    return [
        Row(
            name=f"{length} tokens",
            units=SENTENCES,
            build=lambda device, length=length: build(device, length),
        )
        for length in LENGTHS
    ]


if __name__ == "__main__":
    main(rows(), module="benchmarks.decoding", unit="sentences")
