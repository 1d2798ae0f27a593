from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck

from attn.attention import MultiHeadAttention
from attn.language_model import LanguageModel, Vocabulary
from attn.reformer import FullAttention, LSHAttention
from attn.reversible import ResidualBranch, ReversibleLayers, ReversibleStack, _Step
from attn.transformer import FeedForward
from benchmarks import reversible as benchmark
from benchmarks.reversible import peak_bytes

DOUBLE = torch.float64
D_MODEL = 6
# float64 against float64: only the order of sums differs, and what a reversal rounds
EXACT = {"rtol": 1e-10, "atol": 1e-12}
CPU = torch.device("cpu")


def random(*shape, seed=0, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=DOUBLE).to(dtype)


def filled(module, seed=0, scale=0.4):
    """The module in float64 with every parameter drawn anew, biases and gains included."""
    with torch.no_grad():
        for index, parameter in enumerate(module.double().parameters()):
            parameter.copy_(scale * random(*parameter.shape, seed=1000 * seed + index))
    return module


class Mixing(nn.Module):
    """A sub-layer that mixes positions up to a mask, and ignores or reads a memory."""

    def __init__(self, d_model=D_MODEL):
        super().__init__()
        self.map = nn.Linear(d_model, d_model)

    def forward(self, inputs, mask=None, memory=None):
        keys = inputs if memory is None else memory
        weights = self.map(inputs) @ keys.transpose(1, 2)
        if mask is not None:
            weights = weights.masked_fill(~mask, torch.finfo(weights.dtype).min)
        return torch.softmax(weights, dim=-1) @ keys


def branch(sublayer, **options):
    return ResidualBranch(sublayer, d_model=D_MODEL, **options)


def feed_forward(**options):
    return branch(FeedForward(d_model=D_MODEL, d_ff=2 * D_MODEL), **options)


def encoder(n_blocks=3, dropout=0.0, chunks=1, **options):
    blocks = [
        [branch(Mixing(), dropout=dropout, takes=["mask"]), feed_forward(dropout=dropout, chunks=chunks)]
        for _ in range(n_blocks)
    ]
    return filled(ReversibleStack(blocks, **options))


def decoder(n_blocks=3, dropout=0.0, chunks=1, **options):
    blocks = [
        [
            branch(Mixing(), dropout=dropout, takes=["mask"]),
            branch(Mixing(), dropout=dropout, takes=["memory"]),
            feed_forward(dropout=dropout, chunks=chunks),
        ]
        for _ in range(n_blocks)
    ]
    return filled(ReversibleStack(blocks, **options))


def causal(length=5):
    return torch.ones(length, length, dtype=torch.bool).tril()


def given(kind, length=5, batch=2):
    """A stack's inputs and context by name, the floating ones needing gradients."""
    tensors = {"inputs": random(batch, length, D_MODEL, seed=7).requires_grad_(), "mask": causal(length)}
    if kind is decoder:
        tensors["memory"] = random(batch, 3, D_MODEL, seed=8).requires_grad_()
    return tensors


def weighted(outputs):
    """A sum with weights by formula, so that no two entries count the same."""
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=DOUBLE).view(outputs.shape).to(outputs.dtype)
    return (outputs * weights).sum()


def gradients(stack, tensors, seed=5, keep_activations=False, forward=nullcontext, backward=nullcontext):
    """Outputs, and the gradients of everything that needs one, by name."""
    stack.keep_activations = keep_activations
    torch.manual_seed(seed)
    with forward():
        outputs = stack(**tensors)
    wanted = {name: value for name, value in tensors.items() if value.requires_grad}
    wanted |= {name: value for name, value in stack.named_parameters() if value.requires_grad}
    torch.manual_seed(99)  # what is drawn between the two passes must not matter
    with backward():
        found = torch.autograd.grad(weighted(outputs), list(wanted.values()), allow_unused=True)
    return outputs.detach(), dict(zip(wanted, found, strict=True))


def assert_same(found, expected, **tolerance):
    torch.testing.assert_close(found[0], expected[0], **(tolerance or EXACT))
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        say = (name + ": {}").format
        torch.testing.assert_close(found[1][name], gradient, msg=say, **(tolerance or EXACT))


kinds = pytest.mark.parametrize("kind", [encoder, decoder])
kept = pytest.mark.parametrize("keep_activations", [False, True], ids=["reversed", "kept"])


# --- What is computed --------------------------------------------------------------------------------------


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, inputs):
        return self.factor * inputs


@kept
def test_a_block_by_hand(keep_activations):
    # Y1 = X1 + 2 X2 = 1 + 20, Y2 = X2 + 3 Y1 = 10 + 63
    stack = ReversibleStack([[Scale(2), Scale(3)]], keep_activations=keep_activations)
    first, second = stack.streams(torch.full((1, 1, 1), 1.0), torch.full((1, 1, 1), 10.0))
    assert (first.item(), second.item()) == (21, 73)


@kept
def test_turns_go_on_after_a_block_of_three(keep_activations):
    # 1 + 2 * 10 = 21; 10 + 3 * 21 = 73; 21 + 1 * 73 = 94; then the next block is added to the second stream:
    # 73 + 2 * 94 = 261; 94 + 3 * 261 = 877; 261 + 1 * 877 = 1138
    stack = ReversibleStack([[Scale(2), Scale(3), Scale(1)]] * 2, keep_activations=keep_activations)
    first, second = stack.streams(torch.full((1, 1, 1), 1.0), torch.full((1, 1, 1), 10.0))
    assert (first.item(), second.item()) == (877, 1138)


@kinds
@kept
def test_a_stack_equals_the_loop(kind, keep_activations):
    stack, tensors = kind(join="concatenate", keep_activations=keep_activations), given(kind)
    streams = [tensors["inputs"]] * 2
    functions = [function for block in stack.blocks for function in block]
    context = {name: value for name, value in tensors.items() if name != "inputs"}
    for turn, function in enumerate(functions):
        streams[turn % 2] = streams[turn % 2] + function(streams[(turn + 1) % 2], **context)
    torch.testing.assert_close(stack(**tensors), torch.cat(streams, dim=-1), **EXACT)


@kept
def test_the_mean_of_the_streams(keep_activations):
    stack, tensors = encoder(keep_activations=keep_activations), given(encoder)
    first, second = stack.streams(tensors["inputs"], tensors["inputs"], mask=tensors["mask"])
    torch.testing.assert_close(stack(**tensors), 0.5 * (first + second), **EXACT)


def test_a_branch_is_dropout_of_the_sublayer_of_layer_norm():
    own = filled(feed_forward(dropout=0.5))
    inputs = random(2, 5, D_MODEL)
    normed = F.layer_norm(inputs, (D_MODEL,), own.norm.weight, own.norm.bias)
    torch.manual_seed(3)
    expected = F.dropout(own.sublayer(normed), 0.5)
    torch.manual_seed(3)
    torch.testing.assert_close(own(inputs, mask=None), expected, **EXACT)
    assert expected.eq(0).any()


@kinds
def test_inputs_come_back_from_outputs(kind):
    stack, tensors = kind(n_blocks=6).float().eval(), {k: v.detach() for k, v in given(kind).items()}
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    inputs, other = tensors.pop("inputs"), random(2, 5, D_MODEL, seed=4, dtype=torch.float32)
    found = stack.invert(*stack.streams(inputs, other, **tensors), **tensors)
    for own, before in zip(found, (inputs, other), strict=True):
        assert (own - before).abs().max() < 1e-5


# --- Gradients ---------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("chunks", [1, 2, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("join", ["mean", "concatenate"])
def test_gradients_equal_those_of_the_plain_stack(kind, join, dropout, chunks):
    stack, tensors = kind(dropout=dropout, chunks=chunks, join=join), given(kind)
    found, expected = gradients(stack, tensors), gradients(stack, tensors, keep_activations=True)
    assert_same(found, expected)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in found[1].values())


@kinds
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradcheck(kind, dropout):
    stack, tensors = kind(n_blocks=2, dropout=dropout, chunks=2), given(kind, length=3, batch=1)
    names = [name for name, value in tensors.items() if value.requires_grad]

    def call(*values):
        torch.manual_seed(1)
        return stack(**{**tensors, **dict(zip(names, values[: len(names)], strict=True))})

    assert gradcheck(call, (*(tensors[name] for name in names), *stack.parameters()), fast_mode=True)


def test_one_stream_alone_has_its_gradients():
    stack, tensors = encoder(), given(encoder)
    found = []
    for stack.keep_activations in (False, True):
        _, second = stack.streams(tensors["inputs"], tensors["inputs"], mask=tensors["mask"])
        found.append(torch.autograd.grad(weighted(second), [tensors["inputs"], *stack.parameters()]))
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, **EXACT)


@kept
def test_two_forwards_before_a_backward(keep_activations):
    stack = encoder(dropout=0.3, keep_activations=keep_activations)
    one, other = given(encoder), given(encoder, length=4)
    torch.manual_seed(5)
    outputs = stack(**one), stack(**other)
    # the second pass first, as a loss over both would have it
    found = [torch.autograd.grad(weighted(each), list(stack.parameters())) for each in reversed(outputs)]
    torch.manual_seed(5)
    again = [torch.autograd.grad(weighted(stack(**each)), list(stack.parameters())) for each in (one, other)]
    for own, expected in zip(sum(found, ()), sum(reversed(again), ()), strict=True):
        torch.testing.assert_close(own, expected, **EXACT)


def test_gradients_add_up():
    stack, tensors = decoder(dropout=0.3), given(decoder)
    plain = deepcopy(stack)
    plain.keep_activations = True
    for each in (stack, plain):
        torch.manual_seed(5)
        for factor in (1, 2):
            weighted(factor * each(**tensors)).backward()
    for own, other in zip(stack.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, **EXACT)


def test_a_graph_kept_gives_the_same_gradients_again():
    stack, tensors = encoder(dropout=0.3), given(encoder)
    loss = weighted(stack(**tensors))
    one, other = (
        torch.autograd.grad(loss, list(stack.parameters()), retain_graph=keep) for keep in (True, False)
    )
    assert all(own.equal(again) for own, again in zip(one, other, strict=True))


@pytest.mark.parametrize("frozen", ["blocks.0", "blocks.2", "blocks.1.1", "blocks"])
def test_frozen_parameters(frozen):
    stack, tensors = encoder(), given(encoder)
    for name, parameter in stack.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    found = gradients(stack, tensors)
    assert_same(found, gradients(stack, tensors, keep_activations=True))
    assert not any(name.startswith(frozen) for name in found[1])


@kinds
def test_inputs_that_need_no_gradient(kind):
    stack = kind()
    tensors = {name: value.detach() for name, value in given(kind).items()}
    assert_same(gradients(stack, tensors), gradients(stack, tensors, keep_activations=True))


def test_a_function_in_two_places_gets_both_gradients():
    shared = feed_forward()
    stack = filled(ReversibleStack([[branch(Mixing(), takes=["mask"]), shared], [shared, feed_forward()]]))
    assert_same(gradients(stack, given(encoder)), gradients(stack, given(encoder), keep_activations=True))


class HandsOnInputs(nn.Module):
    def forward(self, inputs, memory):
        return inputs


class HandsOnMemory(nn.Module):
    def forward(self, inputs, memory):
        return memory


class Constant(nn.Module):
    def forward(self, inputs, memory):
        return torch.ones_like(inputs)


@pytest.mark.parametrize("odd", [HandsOnInputs, HandsOnMemory, Constant])
def test_functions_that_hand_on_what_they_are_given(odd):
    # what is handed on is a gradient that the second function, next in the reversed order, adds to
    functions = [feed_forward(), branch(Mixing()), odd()]
    stack = filled(ReversibleStack([functions, [feed_forward(), branch(Mixing())]]))
    tensors = {
        "inputs": random(1, 4, D_MODEL).requires_grad_(),
        "memory": random(1, 4, D_MODEL).requires_grad_(),
    }
    found, expected = gradients(stack, tensors), gradients(stack, tensors, keep_activations=True)
    expected[1].update({k: torch.zeros_like(tensors["memory"]) for k, v in expected[1].items() if v is None})
    found[1].update({k: torch.zeros_like(tensors["memory"]) for k, v in found[1].items() if v is None})
    assert_same(found, expected)


def test_one_memory_under_two_names_gets_both_gradients():
    stack = filled(ReversibleStack([[branch(Mixing(), takes=["memory"]), Both()]]))
    memory = random(2, 5, D_MODEL).requires_grad_()
    tensors = {"inputs": random(2, 5, D_MODEL, seed=1).requires_grad_(), "memory": memory, "other": memory}
    found, expected = gradients(stack, tensors), gradients(stack, tensors, keep_activations=True)
    assert_same(found, expected)


class Both(nn.Module):
    def forward(self, inputs, memory, other):
        return inputs * memory + 3 * other


def test_second_derivatives_are_refused():
    stack, tensors = encoder(), given(encoder)
    loss = stack(**tensors).square().sum()
    (gradient,) = torch.autograd.grad(loss, tensors["inputs"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_parameters_changed_before_the_backward_pass_are_noticed():
    stack, tensors = encoder(), given(encoder)
    loss = weighted(stack(**tensors))
    with torch.no_grad():
        stack.blocks[1][0].sublayer.map.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# --- Randomness --------------------------------------------------------------------------------------------


def test_both_passes_leave_the_random_state_as_the_plain_stack_does():
    stack, tensors = encoder(dropout=0.3), given(encoder)
    after = []
    for stack.keep_activations in (False, True):
        torch.manual_seed(5)
        outputs = stack(**tensors)
        after.append(torch.get_rng_state())
        weighted(outputs).backward()
        after.append(torch.get_rng_state())
    assert all(state.equal(after[0]) for state in after)


def test_dropout_differs_from_function_to_function_and_call_to_call():
    stack = ReversibleStack([[nn.Dropout(0.5)] * 2] * 2)
    inputs = torch.ones(1, 8, 8)
    torch.manual_seed(0)
    assert not stack(inputs).equal(stack(inputs))
    first, second = stack.streams(inputs, torch.zeros_like(inputs))
    # with one mask for all functions the second stream would be 0 or 12
    assert first.unique().tolist() == [1, 5] and second.unique().tolist() == [0, 2, 4, 12]


# --- Choices -----------------------------------------------------------------------------------------------


class Jumps(nn.Module):
    """Adds or takes away, as the sixth decimal decides: what float32 rounds in a reversal changes some signs."""

    choices = ("signs",)

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(D_MODEL, D_MODEL)
        self.decided, self.given = [], []

    def signs(self, inputs):
        decimals = 1e6 * self.map(inputs).sum(-1) + torch.rand(())
        self.decided.append(decimals.floor() % 2 * 2 - 1)
        return self.decided[-1]

    def forward(self, inputs, signs=None):
        self.given.append(signs)
        signs = self.signs(inputs) if signs is None else signs
        return signs.unsqueeze(-1) * torch.tanh(self.map(inputs))


def jumping(n_blocks=3, dropout=0.3, **options):
    blocks = [[branch(Jumps(), dropout=dropout), feed_forward(dropout=dropout)] for _ in range(n_blocks)]
    return filled(ReversibleStack(blocks, **options))


@pytest.mark.parametrize("swap_parameters", [False, True])
def test_choices_are_made_once(swap_parameters):
    stack, tensors = (
        jumping(swap_parameters=swap_parameters),
        {"inputs": random(2, 5, D_MODEL).requires_grad_()},
    )
    found = gradients(stack, tensors)
    for jumps, _ in stack.blocks:
        (decided,) = jumps.sublayer.decided
        assert [signs is decided for signs in jumps.sublayer.given] == [True, True]  # forward and backward
    # as plain functions, which decide as they go, draw the same numbers
    assert_same(found, gradients(stack, tensors, keep_activations=True))


def test_choices_outlast_rounding():
    stack = jumping(n_blocks=4, dropout=0.0).float()
    tensors = {"inputs": random(8, 40, D_MODEL, dtype=torch.float32).requires_grad_()}
    expected = gradients(stack, tensors, keep_activations=True)[1]["inputs"]

    def error():
        return (gradients(stack, tensors)[1]["inputs"] - expected).norm() / expected.norm()

    kept = error()
    for jumps, _ in stack.blocks:
        jumps.choices = ()
    assert kept < 1e-5 and error() > 1e-3


def test_choices_of_parts_are_refused():
    message = "chunks must be 1 for a sub-layer that decides signs for all positions; got 2"
    with pytest.raises(ValueError, match=message):
        branch(Jumps(), chunks=2)
    assert branch(Jumps(), chunks=2, choices=()).choices == ()


# --- Mixed precision and modes -----------------------------------------------------------------------------

LOW = [torch.bfloat16, torch.float16]


@kinds
@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("inside", [False, True], ids=["backward outside", "backward inside"])
def test_autocast(kind, dtype, inside):
    stack = kind(dropout=0.3, chunks=2).float()
    tensors = {
        name: value.detach().float().requires_grad_() if value.is_floating_point() else value
        for name, value in given(kind).items()
    }
    seen = []
    stack.blocks[0][0].sublayer.map.register_forward_hook(
        lambda module, args, output: seen.append(output.dtype)
    )
    low = {"forward": lambda: torch.autocast("cpu", dtype)}
    low["backward"] = low["forward"] if inside else nullcontext
    found = gradients(stack, tensors, **low)
    assert seen == [dtype] * 2
    expected = gradients(stack, tensors, keep_activations=True, **low)
    assert found[0].dtype == torch.float32
    # equal but for what a reversal in float32 rounds, which rounding to few digits may widen
    assert_same(found, expected, rtol=2e-2, atol=2e-2)
    assert all(gradient is not None for gradient in found[1].values())


def test_the_forward_pass_decides_on_autocast():
    stack, tensors = encoder(), given(encoder)
    found = gradients(
        stack.float(), {k: v.detach().float() if k == "inputs" else v for k, v in tensors.items()}
    )
    low = gradients(
        stack,
        {k: v.detach().float() if k == "inputs" else v for k, v in tensors.items()},
        backward=lambda: torch.autocast("cpu", torch.bfloat16),
    )
    assert_same(low, found, rtol=0, atol=0)


@kinds
def test_without_gradients_nothing_is_recorded(kind):
    stack, tensors = kind(dropout=0.3).eval(), given(kind)
    expected = stack(**tensors)
    assert expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            outputs = stack(**tensors)
        assert not outputs.requires_grad
        torch.testing.assert_close(outputs, expected.detach(), **EXACT)


def test_the_streams_keep_the_dtype_of_the_inputs():
    class Widens(nn.Module):
        def forward(self, inputs):
            return inputs.float()

    for keep_activations in (False, True):
        stack = ReversibleStack([[Widens(), Widens()]], keep_activations=keep_activations)
        inputs = torch.ones(1, 2, 3, dtype=torch.bfloat16, requires_grad=True)
        outputs = stack(inputs)
        outputs.sum().backward()
        assert outputs.dtype == inputs.grad.dtype == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
def test_gpu_gradients_equal_those_of_the_plain_stack(low):
    stack = decoder(dropout=0.3, chunks=2).float().cuda()
    tensors = {
        name: value.detach().float().cuda().requires_grad_() if value.is_floating_point() else value.cuda()
        for name, value in given(decoder).items()
    }
    options = {"forward": lambda: torch.autocast("cuda", torch.bfloat16)} if low else {}
    found = gradients(stack, tensors, **options)
    tolerance = 2e-2 if low else 1e-4
    expected = gradients(stack, tensors, keep_activations=True, **options)
    assert_same(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_parameters_are_swapped_in_and_their_gradients_out():
    stack = decoder(dropout=0.3, swap_parameters=True).float()
    there = deepcopy(stack).cuda()
    there.swap_parameters = False
    tensors = {
        name: value.detach().float().cuda().requires_grad_() if value.is_floating_point() else value.cuda()
        for name, value in given(decoder).items()
    }
    found, expected = gradients(stack, tensors), gradients(there, tensors)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name].cuda(), gradient, rtol=1e-4, atol=1e-4)
        assert found[1][name].device.type == ("cuda" if name in tensors else "cpu")


# --- Chunks ------------------------------------------------------------------------------------------------


class Watched(torch.autograd.Function):
    events = []

    @staticmethod
    def forward(ctx, inputs):
        Watched.events.append(("forward", inputs.shape[1]))
        return inputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        Watched.events.append(("backward", gradient.shape[1]))
        return gradient


class Watching(nn.Module):
    def forward(self, inputs):
        return Watched.apply(inputs)


def test_only_one_chunk_is_alive_in_the_reversed_backward_pass():
    stack = ReversibleStack([[branch(Mixing()), branch(Watching(), chunks=3)]])
    Watched.events.clear()
    loss = stack(random(2, 7, D_MODEL, dtype=torch.float32).requires_grad_()).sum()
    assert Watched.events == [("forward", 3), ("forward", 3), ("forward", 1)]
    Watched.events.clear()
    loss.backward()
    assert Watched.events == [(way, size) for size in (3, 3, 1) for way in ("forward", "backward")]


def test_more_chunks_than_positions():
    stack, tensors = encoder(chunks=9), given(encoder, length=2)
    whole = encoder(chunks=1)
    whole.load_state_dict(stack.state_dict())
    assert_same(gradients(stack, tensors), gradients(whole, tensors, keep_activations=True))


# --- Swapped parameters ------------------------------------------------------------------------------------


class Counted(nn.Module):
    """Tells which tensor it was run with, and has a buffer and a parameter used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(D_MODEL, D_MODEL, bias=False)
        self.second = nn.Linear(D_MODEL, D_MODEL, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.ones(D_MODEL))
        self.used = []

    def forward(self, inputs):
        self.used.append(self.first.weight)
        assert self.first.weight is self.second.weight
        return torch.tanh(self.second(self.first(inputs))) + self.shift


@kept
def test_swapped_parameters_get_the_same_gradients(keep_activations):
    stack, tensors = decoder(dropout=0.3, chunks=2), given(decoder)
    expected = gradients(stack, tensors, keep_activations=True)
    stack.swap_parameters = True
    assert_same(gradients(stack, tensors, keep_activations=keep_activations), expected)


def test_swapped_functions_run_on_copies():
    counted = Counted()
    stack = filled(ReversibleStack([[counted, feed_forward()]], swap_parameters=True))
    tensors = {"inputs": random(2, 4, D_MODEL).requires_grad_()}
    found = gradients(stack, tensors)
    assert counted.first.weight is stack.blocks[0][0].second.weight  # back in place
    assert all(used is not counted.first.weight for used in counted.used[1:])
    counted.used.clear()
    stack.swap_parameters = False
    assert_same(found, gradients(stack, tensors))
    assert all(used is counted.first.weight for used in counted.used)


def test_a_swapped_function_is_fetched_once_for_each_pass(monkeypatch):
    """Also one that decides something before it adds."""
    fetched, bound = [], _Step.bound

    def counting(step, *arguments, **options):
        fetched.append(step.name)
        return bound(step, *arguments, **options)

    monkeypatch.setattr(_Step, "bound", counting)
    stack = jumping(n_blocks=2, swap_parameters=True)
    names = [f"function {k} of block {n}" for n in range(2) for k in range(2)]
    outputs = stack(random(2, 5, D_MODEL).requires_grad_())
    assert fetched == names
    weighted(outputs).backward()
    assert fetched == names + names[::-1]
    fetched.clear()
    stack.eval().invert(outputs.detach(), outputs.detach())
    assert fetched == names[::-1]


# --- In a language model -----------------------------------------------------------------------------------


class Past(Mixing):
    def forward(self, inputs):
        return super().forward(inputs, mask=causal(inputs.shape[1]))


def language_model(**options):
    layers = [[Past(), FeedForward(d_model=D_MODEL, d_ff=12)] for _ in range(2)]
    stack = ReversibleLayers(layers, d_model=D_MODEL, **options)
    width = 2 * D_MODEL if options.get("join") == "concatenate" else D_MODEL
    vocabulary = Vocabulary(vocab_size=11, d_model=width)
    if width > D_MODEL:
        vocabulary.embed = lambda tokens: F.embedding(tokens, vocabulary.embedding)[..., :D_MODEL]
    return filled(LanguageModel(vocabulary=vocabulary, stack=stack))


@pytest.mark.parametrize("join", ["mean", "concatenate"])
def test_a_language_model_on_reversible_layers(join):
    model = language_model(dropout=0.3, chunks=3, join=join)
    tokens = torch.arange(12).view(2, 6) % 11
    found = []
    for model.stack.stack.keep_activations in (False, True):
        torch.manual_seed(1)
        nats, state = model(tokens, targets=tokens.roll(-1, dims=1))
        assert state is None
        found.append([nats, *torch.autograd.grad(nats.sum(), list(model.parameters()))])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, **EXACT)


def test_reversible_layers_end_with_a_norm_of_the_joined_streams():
    layers = language_model().stack
    hidden = random(2, 5, D_MODEL)
    joined = layers.stack(hidden)
    expected = F.layer_norm(joined, (D_MODEL,), layers.norm.weight, layers.norm.bias)
    torch.testing.assert_close(layers(hidden)[0], expected, **EXACT)


def test_only_the_last_sublayer_of_a_layer_is_chunked():
    layers = language_model(chunks=4).stack
    assert [[branch.chunks for branch in block] for block in layers.stack.blocks] == [[1, 4], [1, 4]]


class Carries(nn.Identity):
    carries_state = True


def test_layers_that_carry_a_state_are_refused():
    message = "without a state to be reversible; sub-layer 1 of layer 2, Carries, carries one: take attn.language_model.Stack"
    plain = [nn.Identity(), nn.Identity()]
    with pytest.raises(ValueError, match=message):
        ReversibleLayers([plain, plain, [nn.Identity(), Carries()]], d_model=D_MODEL)
    with pytest.raises(
        ValueError, match="state must be None for reversible layers, which carry none; got tuple"
    ):
        language_model().stack(random(1, 2, D_MODEL), (None,))


# --- Memory ------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    """The benchmark's stacks, of sizes at which a test is quick."""
    for name, size in {"D_MODEL": 16, "D_FF": 64, "N_HEADS": 2, "BATCH": 2, "LENGTH": 64}.items():
        monkeypatch.setattr(benchmark, name, size)


def test_the_peak_does_not_grow_with_depth(tiny):
    peaks = {
        (kind, depth): benchmark.activation_bytes(CPU, depth, kind)
        for kind in ("reversible", "plain")
        for depth in (2, 6, 12)
    }
    assert peaks["reversible", 12] <= 1.05 * peaks["reversible", 6]
    assert peaks["plain", 12] > 1.8 * peaks["plain", 6]
    assert all(peaks["reversible", depth] <= peaks["plain", depth] for depth in (2, 6, 12))


def test_nor_does_it_under_autocast(tiny):
    def peak(depth):
        stack, inputs = benchmark.stack(depth), torch.randn(2, 64, 16, requires_grad=True)

        def call():
            with torch.autocast("cpu", torch.bfloat16):
                outputs = stack(inputs)
            torch.autograd.grad(outputs.sum(), list(stack.parameters()))

        call()
        return peak_bytes(call, CPU) - sum(4 * parameter.numel() for parameter in stack.parameters())

    assert peak(12) <= 1.05 * peak(6)


def test_the_benchmarks_variants_are_one_function(tiny):
    rows = benchmark.rows()
    assert [row.name for row in rows] == [f"{depth} layers" for depth in (2, 4, 6, 8, 12, 16)]
    ours, *others = rows[0].build(CPU)
    assert ours.startswith("attn.") and {row.goal.against for row in rows} <= set(others)
    inputs = torch.randn(2, 64, 16)
    plain = benchmark.stack(2, keep_activations=True)(inputs)
    for chunks in (1, 4):
        torch.testing.assert_close(benchmark.stack(2, chunks=chunks)(inputs), plain)


def test_chunks_lower_the_peak():
    def peak(chunks):
        stack = ReversibleStack(
            [[nn.Identity(), branch(FeedForward(d_model=D_MODEL, d_ff=64 * D_MODEL), chunks=chunks)]] * 2
        )
        inputs = torch.randn(2, 64, D_MODEL, requires_grad=True)
        return peak_bytes(lambda: stack(inputs).sum().backward(), CPU)

    assert peak(8) < 0.4 * peak(1)


# --- What bad input gets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("blocks", "sizes"), [([], r"\[\]"), ([[nn.Identity()], []], r"\[1, 0\]")])
def test_blocks_that_are_none(blocks, sizes):
    with pytest.raises(
        ValueError, match=f"blocks must be one or more, of one or more functions each; got {sizes}"
    ):
        ReversibleStack(blocks)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([nn.Linear(2, 2)], "must be sequences of modules; number 0 is one Linear, not in a sequence"),
        (
            [[nn.Identity()], [nn.Identity(), abs]],
            "must hold modules of torch.nn; number 1 of number 1 is a builtin_function_or_method",
        ),
        (nn.Linear(2, 2), "must be sequences of modules; got Linear"),
        (3, "must be sequences of modules; got int"),
    ],
)
def test_blocks_that_are_no_sequences_of_modules(blocks, message):
    with pytest.raises(ValueError, match=f"blocks {message}"):
        ReversibleStack(blocks)
    with pytest.raises(ValueError, match=f"layers {message}"):
        ReversibleLayers(blocks, d_model=2)


def test_modules_that_count_every_call_are_refused():
    for module in (nn.BatchNorm1d(4), nn.InstanceNorm1d(4, track_running_stats=True)):
        with pytest.raises(
            ValueError, match=f"block 1 has a {type(module).__name__}, whose running statistics"
        ):
            ReversibleStack([[nn.Identity()], [nn.Sequential(nn.Identity(), module)]])
    ReversibleStack([[nn.BatchNorm1d(4, track_running_stats=False), nn.InstanceNorm1d(4)]])


def test_what_attends_is_not_cut():
    sizes = {"d_model": D_MODEL, "n_heads": 2}
    attentions = (
        LSHAttention(**sizes, chunk_len=2, n_rounds=1), FullAttention(**sizes), MultiHeadAttention(**sizes),
        nn.Sequential(nn.MultiheadAttention(D_MODEL, 2)),
    )  # fmt: skip
    for attention in attentions:
        message = f"chunks must be 1 for a sub-layer that attends to other positions, {type(attention).__name__}; got 2"
        with pytest.raises(ValueError, match=message):
            ReversibleLayers([[attention]], d_model=D_MODEL, chunks=2)
        with pytest.raises(ValueError, match=message):
            branch(attention, chunks=2)
    feed_forward_ = FeedForward(d_model=D_MODEL, d_ff=4)
    ReversibleLayers([[attention, feed_forward_] for attention in attentions[:3]], d_model=D_MODEL, chunks=2)


def test_a_join_that_is_none():
    with pytest.raises(ValueError, match="join must be 'mean' or 'concatenate'; got 'sum'"):
        ReversibleStack([[nn.Identity()]], join="sum")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunks": 0}, "chunks must be a whole number of at least 1; got 0"),
        ({"dropout": 1.0}, "dropout must be a number from 0 to below 1; got 1.0"),
    ],
)
def test_bad_options_of_a_branch(options, message):
    with pytest.raises(ValueError, match=message):
        branch(nn.Identity(), **options)


class InPlace(nn.Module):
    def forward(self, inputs):
        return inputs.mul_(2)


class Pair(nn.Module):
    def forward(self, inputs):
        return inputs, inputs


@kept
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            nn.Linear(4, 3),
            r"must return a tensor of the shape of its input, \[2, 5, 4\], .*; got \[2, 5, 3\]",
        ),
        (nn.Linear(4, 1), r"got \[2, 5, 1\]"),
        (Pair(), "got tuple"),
        (InPlace(), "must leave its input as it is, to be reversible; it changes it in place"),
    ],
)
def test_a_function_that_cannot_be_reversed(function, message, keep_activations):
    stack = ReversibleStack(
        [[nn.Identity(), nn.Identity()], [nn.Identity(), function]], keep_activations=keep_activations
    )
    with pytest.raises(
        ValueError, match=f"function 1 of block 1 .*{message}|function 1 of block 1 {message}"
    ):
        stack(torch.ones(2, 5, 4))


@kept
def test_context_that_hides_a_gradient(keep_activations):
    stack = decoder(keep_activations=keep_activations)
    tensors = given(decoder) | {"memory": {"keys": [random(2, 3, D_MODEL).requires_grad_()]}}
    with pytest.raises(ValueError, match="context 'memory' must be a tensor to get a gradient; got dict"):
        stack(**tensors)


def test_context_that_a_branch_misses():
    with pytest.raises(ValueError, match="context must hold memory; it holds mask"):
        decoder()(**given(encoder))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.ones(2, 4), torch.ones(2, 4), r"inputs must have shape \[batch, length, 4\]; got \[2, 4\]"),
        (
            torch.ones(1, 2, 4, dtype=torch.int64),
            torch.ones(1, 2, 4),
            "inputs must hold floating-point numbers; got torch.int64",
        ),
        (
            torch.ones(1, 2, 4),
            torch.ones(1, 3, 4),
            r"both streams must be alike; .* \[1, 2, 4\] and .* \[1, 3, 4\]",
        ),
        (torch.ones(1, 2, 4), torch.ones(1, 2, 4).double(), "torch.float32 .* torch.float64"),
    ],
)
def test_streams_that_do_not_fit(first, second, message):
    with pytest.raises(ValueError, match=message):
        ReversibleStack([[nn.Identity(), nn.Identity()]]).streams(first, second)
