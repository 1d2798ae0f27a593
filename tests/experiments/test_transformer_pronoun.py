"""Where an encoder looks from "it": reading kept maps, keeping them, and the figure."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attn.data.tokenisation import Tokeniser
from attn.experiments.transformer import CHAPTER, figures
from attn.experiments.transformer.pronoun import (
    SENTENCES,
    CaptionsWorkload,
    looks,
    pieces_of,
    pronoun_maps,
)
from attn.experiments.transformer.runs import build, build_aligned, build_captions
from attn.experiments.transformer.workloads import PairsWorkload
from attn.reproduction.experiment import Outcome
from attn.reproduction.sources import source_hashes
from attn.transformer import Transformer

TOKENS = ["▁The", "▁d", "og", "▁did", "▁cross", "▁the", "▁street", "▁as", "▁it", "▁was", "▁w", "ide.", "</s>"]


def kept(lean):
    """Maps of 2 layers and 3 heads that look from "it" with weight 0.2 + lean to "dog", 0.3 to "street"."""
    arrays = {}
    for noun in SENTENCES:
        maps = np.zeros((2, 3, len(TOKENS), len(TOKENS)))
        maps[:, :, 8, 1], maps[:, :, 8, 2], maps[:, :, 8, 6] = 0.1, 0.1, 0.3
        maps[:, :, 8, 2] += lean[noun]
        arrays |= {f"pronoun_{noun}": maps, f"pronoun_{noun}_tokens": np.array(TOKENS)}
    return arrays


def test_a_word_is_found_by_its_sub_words():
    assert pieces_of(TOKENS, "dog") == [1, 2]
    assert pieces_of(TOKENS, "it") == [8]
    with pytest.raises(ValueError, match="word must be one of the sentence .*; got 'wide'"):
        pieces_of(TOKENS, "wide")


def test_a_look_is_the_sum_over_sub_words():
    found = looks(kept({"dog": 0.4, "street": 0.0}))
    np.testing.assert_allclose(found.to_dog["dog"], np.full((2, 3), 0.6))
    np.testing.assert_allclose(found.to_dog["street"], np.full((2, 3), 0.2))
    np.testing.assert_allclose(found.to_street["dog"], np.full((2, 3), 0.3))


def test_the_figure_has_every_head_and_the_words_count_them():
    arrays = kept({"dog": 0.4, "street": 0.1})
    arrays["pronoun_dog"][1, 2, 8, 2] = 0.0
    (axes,) = figures.pronoun(arrays).axes
    points = [line.get_xydata() for line in axes.lines[1:]]
    assert [len(found) for found in points] == [3, 3]
    np.testing.assert_allclose(points[0][0], [0.3, 0.0], atol=1e-12)
    words = figures.pronoun_words([arrays])
    assert words.startswith("No head resolves the pronoun in any of 1 run, 6 heads in all: 0 heads lean")
    assert "is 0.300 (layer 1, head 1, towards what is meant)" in words
    assert words.endswith("It is one pair of sentences.")


def test_a_head_resolves_the_pronoun_if_it_looks_at_the_right_noun_in_both_sentences():
    # weight 0.2 + lean to the dog, 0.3 to the street
    for lean, said in (
        ({"dog": 0.4, "street": -0.1}, "6 heads lean to the dog where the dog is meant"),
        (
            {"dog": 0.13, "street": 0.07},
            "6 heads lean to the dog where the dog is meant and to the street where the street is, 0 by",
        ),
        ({"dog": 0.0, "street": 0.4}, "away from what is meant"),
    ):
        assert said in figures.pronoun_words([kept(lean)])


def test_heads_are_counted_over_all_runs():
    resolves, moves = kept({"dog": 0.4, "street": -0.1}), kept({"dog": 0.0, "street": 0.9})
    said = figures.pronoun_words([moves, resolves])
    assert said.startswith(
        "A head resolves the pronoun in 1 of 2 runs, 12 heads in all: 6 heads lean to the dog"
    )
    assert "6 by more than 0.05" in said and "is 0.900 (layer 1, head 1, away from what is meant)" in said


@pytest.fixture(scope="module")
def model_and_tokeniser():
    tokeniser = Tokeniser.train([*SENTENCES.values(), "Es war zu breit."], vocab_size=300, cache=False)
    torch.manual_seed(0)
    model = Transformer(vocab_size=300, d_model=16, n_heads=2, d_ff=16, n_layers=2, padding_index=0).eval()
    return model, tokeniser


def test_maps_of_a_model_are_kept_whole(model_and_tokeniser):
    found = pronoun_maps(*model_and_tokeniser)
    for noun in SENTENCES:
        length = len(found[f"pronoun_{noun}_tokens"])
        assert found[f"pronoun_{noun}"].shape == (2, 2, length, length)
        np.testing.assert_allclose(found[f"pronoun_{noun}"].astype(float).sum(-1), 1, atol=2e-3)
    assert looks(found).to_dog["street"].shape == (2, 2)


def test_captions_add_the_maps_of_the_averaged_weights(monkeypatch, model_and_tokeniser):
    model, tokeniser = model_and_tokeniser
    monkeypatch.setattr(PairsWorkload, "outcome", lambda *_: Outcome({}, {"more": np.zeros(1)}))
    workload = CaptionsWorkload.__new__(CaptionsWorkload)
    workload.corpus = SimpleNamespace(tokeniser=tokeniser)
    inside = []

    class Applied:
        def __enter__(self):
            inside.append(True)

        def __exit__(self, *_):
            inside.append(False)

    workload.average = SimpleNamespace(applied=Applied)
    found = workload.outcome(model, [])
    assert inside == [True, False] and {"more", *pronoun_maps(model, tokeniser)} == set(found.artifact)
    assert set(workload.outcome(torch.nn.Linear(1, 1), []).artifact) == {"more"}


def test_only_captions_depend_on_it():
    builders = {e.id: e.build for e in CHAPTER.experiments}
    assert builders["captions_en_fr/transformer"] is build_captions and builders["table3/base"] is build
    assert builders["captions_en_de/lstm"] is build_captions and builders["spoken_numbers/lstm"] is build
    assert builders["captions_en_de/gru_attention"] is build_aligned
    own = [
        next(v for k, v in source_hashes(b).items() if k.endswith(b.__name__))
        for b in (build, build_captions)
    ]
    assert own[0] != own[1]
