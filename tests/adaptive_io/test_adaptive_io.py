import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attn.adaptive_io import AdaptiveEmbedding, AdaptiveSoftmax, AdaptiveVocabulary
from attn.adaptive_span import RelativePositions
from attn.all_attention import AllAttention
from attn.experiments.all_attention import concepts
from attn.reproduction.facts import load_papers

DOUBLE = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-12}
# clusters of 5, 7, 8 and 10 words with vectors of 64, 16, 4 and 1
SIZES = {"vocab_size": 30, "d_model": 64, "cutoffs": (5, 12, 20)}
WORDS = torch.tensor([[0, 4, 5, 11], [12, 19, 20, 29]])  # the first and the last of each cluster


def pair(**settings):
    torch.manual_seed(0)
    embedding = AdaptiveEmbedding(**SIZES).double()
    softmax = AdaptiveSoftmax(embedding, **settings).double()
    with torch.no_grad():
        for name, parameter in softmax.named_parameters():
            if "bias" in name:
                nn.init.normal_(parameter)
    return embedding, softmax


def hidden(batch=2, length=4):
    return torch.randn(batch, length, 64, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, **EXACT)


def sizes(vocab_size, d_model, cutoffs):
    """k_h, J, and k_i and d_i of each other cluster, as Grave et al. name them."""
    bounds = [*cutoffs, vocab_size]
    tail = [
        (high - low, d_model // 4**i)
        for i, (low, high) in enumerate(zip(bounds, bounds[1:], strict=False), 1)
    ]
    return cutoffs[0], len(cutoffs), tail


def test_weights_are_as_many_as_the_paper_counts():
    """Ours have besides a matrix for the first cluster, and biases."""
    fact = load_papers()["grave2017adaptivesoftmax"].exact_fact("params")
    assert fact["formula"] == "head d (k_h + J) + sum_i [d d_i + d_i k_i], d_i = d / 4^i"
    for each in (SIZES, {"vocab_size": 267_735, "d_model": 512, "cutoffs": (20_000, 40_000, 200_000)}):
        with torch.device("meta"):
            softmax = AdaptiveSoftmax(AdaptiveEmbedding(**each))
        words, clusters, tail = sizes(**each)
        d = each["d_model"]
        expected = d * (words + clusters) + sum(d * width + width * count for count, width in tail)
        matrices = sum(p.numel() for p in softmax.parameters() if p.dim() == 2)
        assert matrices - d * d == expected


def test_the_mean_cost_of_a_word_is_the_paper_s():
    """Ours has besides the product with the first cluster's matrix."""
    fact = load_papers()["grave2017adaptivesoftmax"].exact_fact("expected_cost")
    assert fact["formula"].endswith("d (k_h + J) + sum_i p_i (d d_i + d_i k_i)")
    each = {"vocab_size": 267_735, "d_model": 512, "cutoffs": (20_000, 40_000, 200_000)}
    words, clusters, tail = sizes(**each)
    found, d = concepts.clusters(**each), each["d_model"]
    expected = d * (words + clusters) + sum(
        cluster.share * (d * width + width * count)
        for cluster, (count, width) in zip(found[1:], tail, strict=True)
    )
    mean = sum(cluster.share * cluster.multiply_adds for cluster in found)
    assert mean - d * d == pytest.approx(expected)


# --- Input -------------------------------------------------------------------------------------------------


def test_embeddings_equal_a_look_up_cluster_by_cluster():
    embedding, _ = pair()
    tokens = torch.arange(30).flip(0).view(5, 6)
    found = embedding(tokens)
    assert found.shape == (5, 6, 64)
    for place, word in zip(found.flatten(0, 1), tokens.flatten().tolist(), strict=True):
        cluster = sum(word >= cutoff for cutoff in (5, 12, 20))
        vector = embedding.vectors[cluster][word - (0, 5, 12, 20)[cluster]]
        assert len(vector) == (64, 16, 4, 1)[cluster]
        assert_equal(place, 8 * embedding.projections[cluster] @ vector)


def test_words_that_occur_twice_get_both_gradients_and_the_others_none():
    embedding, _ = pair()
    embedding(torch.tensor([[6, 6, 1]])).sum().backward()
    own = 8 * embedding.projections[1].sum(0)
    assert_equal(embedding.vectors[1].grad[1], 2 * own)
    assert embedding.vectors[1].grad[[0, 2, 3, 4, 5, 6]].eq(0).all()
    assert embedding.vectors[3].grad is None or embedding.vectors[3].grad.eq(0).all()


def test_inputs_start_about_as_large_as_those_of_a_character_model():
    torch.manual_seed(0)
    embedding = AdaptiveEmbedding(vocab_size=3000, d_model=256, cutoffs=(1000, 2000))
    for words in (torch.arange(1000), torch.arange(1000, 2000), torch.arange(2000, 3000)):
        assert 0.9 < embedding(words[None]).std() < 1.5


# --- Output ------------------------------------------------------------------------------------------------


def test_probabilities_sum_to_1_and_follow_the_definition():
    embedding, softmax = pair()
    states = hidden()
    found = softmax.log_prob(states)
    assert found.shape == (2, 4, 30)
    assert_equal(found.exp().sum(-1), torch.ones(2, 4, dtype=DOUBLE))
    head = F.linear(states @ embedding.projections[0], embedding.vectors[0], softmax.head.words.bias)
    head = torch.softmax(torch.cat([head, softmax.head.clusters(states)], dim=-1), dim=-1)
    assert_equal(found[..., :5].exp(), head[..., :5])
    for cluster, (low, high) in enumerate([(5, 12), (12, 20), (20, 30)]):
        inner = F.linear(
            states @ embedding.projections[cluster + 1],
            embedding.vectors[cluster + 1],
            softmax.tail[cluster].bias,
        )
        assert_equal(found[..., low:high].exp(), head[..., [5 + cluster]] * torch.softmax(inner, dim=-1))


def test_the_cost_is_that_of_the_target():
    _, softmax = pair()
    states = hidden()
    expected = -softmax.log_prob(states).gather(-1, WORDS[..., None]).squeeze(-1)
    assert_equal(softmax(states, WORDS), expected)
    assert_equal(softmax(states[:1, :1], WORDS[1:, 3:]), -softmax.log_prob(states[:1, :1])[..., 29])


def test_with_the_same_weights_it_is_torchs():
    embedding, softmax = pair()
    theirs = nn.AdaptiveLogSoftmaxWithLoss(64, 30, [5, 12, 20], head_bias=True).double()
    with torch.no_grad():
        embedding.projections[0].copy_(torch.eye(64))  # torch's has none there, and no biases in the tail
        for tail in softmax.tail:
            tail.bias.zero_()
        clusters = softmax.head.clusters
        theirs.head.weight.copy_(torch.cat([embedding.vectors[0], clusters.weight]))
        theirs.head.bias.copy_(torch.cat([softmax.head.words.bias, clusters.bias]))
        for cluster, (project, words) in enumerate(theirs.tail, start=1):
            project.weight.copy_(embedding.projections[cluster].T)
            words.weight.copy_(embedding.vectors[cluster])
    states = hidden()
    assert_equal(softmax.log_prob(states).flatten(0, 1), theirs.log_prob(states.flatten(0, 1)))
    assert_equal(-softmax(states, WORDS).flatten(), theirs(states.flatten(0, 1), WORDS.flatten()).output)


@pytest.mark.parametrize("tie_vectors", [True, False])
@pytest.mark.parametrize("tie_projections", [True, False])
def test_tied_weights_are_the_same_parameters_and_others_start_as_copies(tie_vectors, tie_projections):
    embedding, softmax = pair(tie_vectors=tie_vectors, tie_projections=tie_projections)
    parts = [softmax.head.words, *softmax.tail]
    for part, vectors, projection in zip(parts, embedding.vectors, embedding.projections, strict=True):
        assert (part.vectors is vectors) == tie_vectors and torch.equal(part.vectors, vectors)
        assert (part.projection is projection) == tie_projections and torch.equal(part.projection, projection)
    softmax(hidden(), WORDS).sum().backward()
    assert all(parameter.grad.ne(0).any() for parameter in softmax.parameters())
    assert (embedding.vectors[0].grad is not None) == tie_vectors
    assert (embedding.projections[3].grad is not None) == tie_projections


def test_weights_survive_a_round_through_their_state():
    (embedding, softmax), (others, other) = pair(), pair()
    model, copy = nn.ModuleList([embedding, softmax]), nn.ModuleList([others, other])
    for parameter in copy.parameters():
        parameter.data.normal_()
    copy.load_state_dict(model.state_dict())
    assert_equal(copy[1](hidden(), WORDS), softmax(hidden(), WORDS))
    assert copy[1].head.words.vectors is copy[0].vectors[0]


# --- Parameters and errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocab_size", "tie_projections", "expected"),
    [(267_735, True, 132_493_746), (267_735, False, 132_841_906), (267_734, True, 132_493_746 - 9)],
)
def test_parameters_of_the_papers_model_on_wikitext_103(vocab_size, tie_projections, expected):
    with torch.device("meta"):
        embedding = AdaptiveEmbedding(vocab_size=vocab_size, d_model=512, cutoffs=(20_000, 40_000, 200_000))
        softmax = AdaptiveSoftmax(embedding, tie_projections=tie_projections)
        positions = RelativePositions(head_dim=64, max_span=2048)
        model = nn.ModuleList([embedding, softmax])
        for _ in range(36):
            model.append(AllAttention(d_model=512, n_heads=8, positions=positions, n_persistent=2048))
            model.append(nn.LayerNorm(512))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert sum(vectors.numel() for vectors in embedding.vectors) == 18_461_880 - 8 * (267_735 - vocab_size)
    assert sum(projection.numel() for projection in embedding.projections) == 348_160


def test_what_does_not_fit_is_named():
    embedding, softmax = pair()
    for call, message in [
        (
            lambda: AdaptiveEmbedding(vocab_size=30, d_model=64, cutoffs=(5, 5)),
            r"cutoffs must ascend.*got \[5, 5\]",
        ),
        (
            lambda: AdaptiveEmbedding(vocab_size=30, d_model=64, cutoffs=(0,)),
            r"cutoffs must ascend.*got \[0\]",
        ),
        (
            lambda: AdaptiveEmbedding(vocab_size=30, d_model=64, cutoffs=(30,)),
            r"below vocab_size = 30; got \[30\]",
        ),
        (
            lambda: AdaptiveEmbedding(vocab_size=30, d_model=24, cutoffs=(5, 9)),
            "d_model must be a multiple of 16 .* 24",
        ),
        (lambda: AdaptiveEmbedding(vocab_size=0, d_model=24, cutoffs=()), "vocab_size must be .* got 0"),
        (
            lambda: AdaptiveSoftmax(AdaptiveEmbedding(vocab_size=9, d_model=4, cutoffs=())),
            "at least one cutoff",
        ),
        (lambda: embedding(torch.tensor([[30]])), "tokens must hold token ids from 0 to 29; got 30"),
        (lambda: softmax(hidden(), WORDS + 1), "targets must hold token ids from 0 to 29; got 30"),
        (
            lambda: softmax(hidden(), WORDS[:1]),
            r"targets must have shape \[2, 4\], that of hidden; got \[1, 4\]",
        ),
        (
            lambda: softmax(hidden()[..., :5], WORDS),
            r"hidden must have shape \[batch, length, 64\]; got \[2, 4, 5\]",
        ),
        (
            lambda: softmax.log_prob(hidden()[0]),
            r"hidden must have shape \[batch, length, 64\]; got \[4, 64\]",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def vocabulary(**changes):
    torch.manual_seed(0)
    return AdaptiveVocabulary(**{"vocab_size": 30, "d_model": 16, "cutoffs": (6, 14)} | changes)


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
