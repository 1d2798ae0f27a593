"""The reversible encoder-decoder: gradients of plain autograd, padding, causality, caches, decoding, sizes."""

import pytest
import torch

from attn.evaluation.decoding import beam_search, greedy_search
from attn.reversible_transformer import ReversibleTransformer
from attn.transformer import Transformer

VOCABULARY, PAD, BOS, EOS = 20, 0, 1, 2


def model(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": VOCABULARY,
        "d_model": 16,
        "n_heads": 2,
        "d_ff": 24,
        "n_layers": 3,
        "padding_index": PAD,
    }
    return ReversibleTransformer(**(sizes | {"dropout": 0.0} | changes)).double()


def pairs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.randint(3, VOCABULARY, (3, length), generator=generator) for length in (7, 6))
    source[1, 5:] = PAD
    return source, target


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("share", [True, False])
def test_gradients_are_those_of_plain_autograd(dropout, share):
    found = []
    for keep in (False, True):
        network = model(dropout=dropout, share_embeddings=share, keep_activations=keep)
        torch.manual_seed(1)
        logits = network(*pairs())
        logits.square().sum().backward()
        found.append([logits, *(parameter.grad for parameter in network.parameters())])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)


def test_every_parameter_learns_and_the_encoder_through_the_memory():
    network = model()
    network(*pairs()).logsumexp(-1).sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == []
    assert any(name.startswith("encoder") for name, _ in network.named_parameters())


def test_a_block_is_added_to_the_streams_in_turn():
    network = model(n_layers=1)
    source, _ = pairs()
    hidden = network._embed(source, network.embedding)
    attention, feed_forward = network.encoder.blocks[0]
    mask = (source != PAD)[:, None, None]
    first = hidden + attention(hidden, source_mask=mask)
    second = hidden + feed_forward(first)
    torch.testing.assert_close(network.encode(source)[0], network.encoder_norm((first + second) / 2))


def test_padding_changes_nothing():
    network, (source, target) = model(), pairs()
    longer = torch.cat([source, torch.full((3, 4), PAD)], dim=1)
    torch.testing.assert_close(network(longer, target), network(source, target), rtol=0, atol=1e-12)
    other = source.clone()
    other[0, -1] = 5 if source[0, -1] != 5 else 6
    assert not torch.allclose(network(other, target)[0], network(source, target)[0])


def test_no_token_sees_a_later_one():
    network, (source, target) = model(), pairs()
    changed = target.clone()
    changed[:, 4:] = 3 + (changed[:, 4:] - 2) % (VOCABULARY - 3)
    before, after = network(source, target), network(source, changed)
    torch.testing.assert_close(before[:, :4], after[:, :4], rtol=0, atol=1e-12)
    assert (before[:, 4:] - after[:, 4:]).abs().amax() > 1e-3


@pytest.mark.parametrize("pieces", [[1] * 6, [2, 3, 1], [6]])
def test_steps_with_caches_are_the_whole(pieces):
    network, (source, target) = model(), pairs()
    state, found = network.initial_state(*network.encode(source)), []
    for piece in target.split(pieces, dim=1):
        logits, state = network.step(piece, state)
        found.append(logits)
    assert state.length == 6
    torch.testing.assert_close(torch.cat(found, dim=1), network(source, target), rtol=0, atol=1e-12)


def test_searches_with_and_without_a_cache_agree():
    network, (source, _) = model(seed=3), pairs()
    for search in (greedy_search, lambda *a, **k: [best for best, *_ in beam_search(*a, beam_size=3, **k)]):
        cached, whole = (
            search(network, source, extra_length=4, use_cache=use, pad=PAD, bos=BOS, eos=EOS)
            for use in (True, False)
        )
        assert [found.tokens for found in cached] == [found.tokens for found in whole]
    step = greedy_search(network, source, extra_length=4, pad=PAD, bos=BOS, eos=EOS)[0].tokens
    logits = network.eval()(source[:1], torch.tensor([[BOS, *step[:-1]]]))[0]
    logits[:, [PAD, BOS]] = -torch.inf
    assert logits.argmax(-1).tolist() == step


def test_it_is_as_large_as_the_transformer():
    def count(network):
        return sum(parameter.numel() for parameter in network.parameters())

    for share in (True, False):
        plain = Transformer(
            vocab_size=VOCABULARY, d_model=16, n_heads=2, d_ff=24, n_layers=3, norm_position="pre",
            share_embeddings=share,
        )  # fmt: skip
        assert count(model(share_embeddings=share)) == count(plain)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="padding_index must be None or from 0 to 19; got 20"):
        model(padding_index=20)
    with pytest.raises(ValueError, match="n_layers must be a whole number of at least 1; got 0"):
        model(n_layers=0)
    source, target = pairs()
    with pytest.raises(ValueError, match="source must hold token ids from 0 to 19; got 20"):
        model()(torch.full_like(source, 20), target)
    with pytest.raises(ValueError, match="max_len = 5 positions"):
        model(max_len=5)(source, target)
