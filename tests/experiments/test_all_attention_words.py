"""Words of chapter 4: the text, the vocabulary of a model, and a run."""

from types import SimpleNamespace

import pytest
import torch

from attn.data.language_text import TextConfig
from attn.data.text import CharacterText
from attn.experiments.adaptive_span.workloads import SpanModelConfig
from attn.experiments.all_attention import words
from attn.training import train
from attn.training.config import TrainingConfig

CPU = torch.device("cpu")
EXTRACT = "<doc id=1>\nThe cat, the dog.\n\nthe end\n</doc>\n"


def made_up(content):
    tokens = torch.frombuffer(bytearray(content.encode()), dtype=torch.uint8)
    return CharacterText("made up", tokens, bytes(range(256)), checksums={"made up": "0"})


@pytest.fixture
def corpus(monkeypatch):
    """Replaces every corpus by these splits."""

    def use(**splits):
        monkeypatch.setattr(
            words.text, "load", lambda *_: {name: made_up(part) for name, part in splits.items()}
        )
        monkeypatch.setattr(words.registry, "get", lambda name: SimpleNamespace(title=name, licence="none"))
        words.load_words.cache_clear()

    yield use
    words.load_words.cache_clear()


def test_words_of_a_tokenised_text_are_what_blanks_separate(corpus):
    corpus(train="a b a ,\n\na c\n", valid="c a\n", test="b\n")
    found = words.load_words(TextConfig(corpus="x"), None, True)
    # three ends of lines, three a's, and the rest once, in alphabetical order where equal
    assert found.words == ("<eos>", "a", ",", "b", "c")
    assert [found.words[i] for i in found.text.splits["train"].tolist()] == (
        ["a", "b", "a", ",", "<eos>", "<eos>", "a", "c", "<eos>"]
    )
    assert found.text.splits["valid"].tolist() == [4, 1, 0]
    assert found.text.vocab_size == 5 and found.text.checksums == {"made up": "0"}


def test_markup_and_empty_lines_of_an_extract_are_left_out(corpus):
    corpus(train=EXTRACT, valid=EXTRACT, test=EXTRACT)
    found = words.load_words(TextConfig(corpus="x"), None, False)
    read = [found.words[i] for i in found.text.splits["train"].tolist()]
    assert read == ["The", "cat", ",", "the", "dog", ".", "<eos>", "the", "end", "<eos>"]


def test_rare_words_are_one(corpus):
    corpus(train="a a a b b c d\n", valid="a z\n", test="b\n")
    found = words.load_words(TextConfig(corpus="x"), 4, True)
    assert found.words == ("a", "<unk>", "b", "<eos>")
    assert found.text.splits["train"].tolist() == [0, 0, 0, 2, 2, 1, 1, 3]
    assert found.text.splits["valid"].tolist() == [0, 1, 3]


def test_a_word_outside_the_vocabulary_is_named(corpus):
    corpus(train="a b\n", valid="zebra\n", test="b\n")
    with pytest.raises(ValueError, match="no <unk>; got 'zebra'"):
        words.load_words(TextConfig(corpus="x"), None, True)


def test_sizes_count_bytes(corpus):
    corpus(train="a b c d e\n", valid="a\n", test="b\n")
    found = words.load_words(TextConfig(corpus="x", train_size=3), None, True)
    assert sorted(found.words) == ["<eos>", "a", "b"]


def vocabulary(**changes):
    torch.manual_seed(0)
    return words.AdaptiveVocabulary(**{"vocab_size": 30, "d_model": 16, "cutoffs": (6, 14)} | changes)


def test_the_vocabulary_s_costs_are_its_log_probabilities():
    found = vocabulary().eval()
    hidden, targets = torch.randn(2, 5, 16), torch.randint(30, (2, 5))
    log_p = found.logits(hidden)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(2, 5))
    torch.testing.assert_close(
        found.token_nats(hidden, targets), -log_p.gather(-1, targets[..., None])[..., 0]
    )
    assert found.embed(targets).shape == (2, 5, 16)


def test_input_and_output_share_their_weights():
    tied, apart = (
        sum(p.numel() for p in vocabulary(tie_projections=tie).parameters()) for tie in (True, False)
    )
    projections = 16 * (16 + 4 + 1)
    assert apart - tied == projections
    assert tied == 6 * 16 + 8 * 4 + 16 * 1 + projections + 30 + 2 * 16 + 2


def test_a_run_on_words_counts_no_ends_of_lines(corpus):
    line = "the cat sat on the mat and the dog sat too\n"
    corpus(train=40 * line, valid=8 * line, test=8 * line)
    training = TrainingConfig(max_steps=2, batch_size=16, optimizer="adam", lr=1e-2)
    config = words.WordTextConfig(
        text=TextConfig(corpus="x"), cutoffs=(3, 6), n_rows=2, block=8, training=training, evaluation_rows=2,
        model=SpanModelConfig(n_layers=1, d_model=16, n_heads=2, max_span=8, ramp_size=4, n_persistent=3),
        word_dropout=0.1,
    )  # fmt: skip
    workload = words.build_words(config, 0, CPU)
    assert workload.model.dropout.p == workload.model.vocabulary.dropout.p == 0.1
    end = words.load_words(config.text, None, True).words.index("<eos>")
    for segment in workload.read("valid"):
        assert torch.equal(segment.scored, segment.targets != end)
    assert workload.batch(1, 0, 1).batch.scored.all()
    result = train(workload, training, seed=0)
    found = workload.outcome(workload.model, result.history)
    assert found.metrics["valid_perplexity"].value == pytest.approx(2 ** found.metrics["valid_bits"].value)
    assert "order1_bits" in found.metrics and found.artifact["mass"].shape == (1, 2)


def test_many_words_keep_only_the_weight_on_vectors(corpus, monkeypatch):
    monkeypatch.setattr("attn.experiments.all_attention.workloads.MOST_SYMBOLS", 4)
    line = "the cat sat on the mat and the dog sat too\n"
    corpus(train=40 * line, valid=8 * line, test=8 * line)
    training = TrainingConfig(max_steps=1, batch_size=16, optimizer="adam", lr=1e-2)
    config = words.WordTextConfig(
        text=TextConfig(corpus="x"), cutoffs=(3, 6), n_rows=2, block=8, training=training, evaluation_rows=2,
        model=SpanModelConfig(n_layers=1, d_model=16, n_heads=2, max_span=8, ramp_size=4, n_persistent=3),
    )  # fmt: skip
    workload = words.build_words(config, 0, CPU)
    found = workload.outcome(workload.model, [])
    assert set(found.artifact) == {"spans", "mass"} and "order1_bits" not in found.metrics
