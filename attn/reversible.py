"""Reversible residual layers, which need no stored activations (Kitaev et al. 2020, arXiv:2001.04451, Sec. 3).

Two streams of width D run through a stack, and each of its functions is added to one of them, given the other. So
what went into a layer can be computed from what came out of it, and the backward pass does that, layer by layer,
instead of remembering it.

Shapes: B batch, T length, D `d_model`, N number of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import get_device_states, set_device_states

from attn.attention import MultiHeadAttention, check_dropout, check_positive, check_sequence
from attn.language_model import carries_state

JOINS = ("mean", "concatenate")


class ResidualBranch(nn.Module):
    """What a residual layer adds: Dropout(Sublayer(LayerNorm(x))), the layer norm being inside (Sec. 3).

    Args:
        sublayer: maps [B, T, D], and the context that it takes as keywords, to [B, T, D].
        d_model: D.
        dropout: on the sub-layer's output.
        takes: names of the context for the sub-layer, out of all that the stack is given.
        chunks: into how many parts along T a stack cuts the input, forward and backward, so that the sub-layer's
            activations exist for one part at a time. Only for sub-layers that treat every position alone.
        choices: names of what the sub-layer decides from its inputs before anything else, such as the buckets of a
            hash. Each is a method of the sub-layer, and a keyword with which it takes what was decided before. None
            for the sub-layer's attribute `choices`, or nothing.

    Raises:
        ValueError: for a size below 1, `dropout` outside [0, 1), or chunks of a sub-layer that attends or has choices.
    """

    def __init__(
        self,
        sublayer: nn.Module,
        *,
        d_model: int,
        dropout: float = 0.0,
        takes: Sequence[str] = (),
        chunks: int = 1,
        choices: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        check_positive(d_model=d_model, chunks=chunks)
        check_dropout(dropout=dropout)
        choices = getattr(sublayer, "choices", ()) if choices is None else choices
        if chunks > 1 and choices:
            raise ValueError(
                f"chunks must be 1 for a sub-layer that decides {', '.join(choices)} for all positions; got {chunks}"
            )
        if chunks > 1 and any(map(_attends, sublayer.modules())):
            kind = type(sublayer).__name__
            raise ValueError(
                f"chunks must be 1 for a sub-layer that attends to other positions, {kind}; got {chunks}"
            )
        self.norm = nn.LayerNorm(d_model)
        self.sublayer = sublayer
        self.dropout = nn.Dropout(dropout)
        self.takes, self.chunks, self.choices = tuple(takes), chunks, tuple(choices)

    def forward(self, inputs: Tensor, *, choose: bool = False, **context: Any) -> Tensor | dict[str, Tensor]:
        """What is to be added [B, T, D], or with `choose` the sub-layer's choices by name.

        Raises:
            ValueError: where `context` lacks what the sub-layer takes.
        """
        if choose:
            normed = self.norm(inputs)
            return {name: getattr(self.sublayer, name)(normed) for name in self.choices}
        missing = [name for name in self.takes if name not in context]
        if missing:
            raise ValueError(
                f"context must hold {', '.join(missing)}; it holds {', '.join(context) or 'nothing'}"
            )
        taken = {name: context[name] for name in (*self.takes, *self.choices) if name in context}
        return self.dropout(self.sublayer(self.norm(inputs), **taken))


class ReversibleStack(nn.Module):
    """Reversible residual blocks, one after the other (Sec. 3).

    A block is a sequence of functions that are added to the two streams in turn; with two of them, F and G, it is
    Y1 = X1 + F(X2), Y2 = X2 + G(Y1). The turns go on through the stack: after a block of three functions (self-
    attention, cross-attention and feed-forward of a decoder) the next one starts on the other stream, as in the
    authors' released code.

    Both streams start as the stack's inputs. How they end the paper does not say; the released code concatenates
    them in language models and takes their mean in encoder-decoders, with layer norm after it.

    The backward pass holds the streams, their gradients and one function's activations, whatever N is, beside the
    parameters and their gradients, and computes every function once more. Numbers from torch's default generators,
    such as dropout's, are drawn again as they were, and autocast is as it was. A function must depend on nothing
    else but its inputs, its context and its parameters. What it decides from its inputs, such as the buckets of a
    hash, is kept for each layer (`ResidualBranch`): the backward pass finds the inputs up to rounding, which could
    change the decision and with it everything before. The streams keep the dtype of the inputs, whatever a
    function returns; in half precision each reversal would lose digits, so give float32, under autocast too.

    Args:
        blocks: N sequences of modules. A module maps one stream [B, T, D], and all the context as keywords, to what
            is added to the other one [B, T, D]. Where it has an attribute `chunks`, it is called on so many parts.
        join: "mean" for outputs [B, T, D], "concatenate" for [B, T, 2 D].
        keep_activations: leave the backward pass to autograd, which keeps all activations: the same mathematics,
            to compare with. May be set at any time.
        swap_parameters: copy the parameters of one function at a time to the device of the inputs, once for each pass
            and when it is about to run, and its gradients back, so that all others can stay in the memory of the CPU.
            Nothing is fetched ahead: the function waits for its parameters.

    Raises:
        ValueError: if there is no block, one is empty or no sequence of modules, a module keeps statistics of what it
            is called on, or `join` is unknown.
    """

    def __init__(
        self,
        blocks: Iterable[Iterable[nn.Module]],
        *,
        join: str = "mean",
        keep_activations: bool = False,
        swap_parameters: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(map(nn.ModuleList, _blocks_of_modules("blocks", blocks)))
        sizes = [len(block) for block in self.blocks]
        if not sizes or 0 in sizes:
            raise ValueError(
                f"blocks must be one or more, of one or more functions each; got {sizes} functions"
            )
        _refuse_statistics(self.blocks)
        if join not in JOINS:
            raise ValueError(f"join must be 'mean' or 'concatenate'; got {join!r}")
        self.join, self.keep_activations, self.swap_parameters = join, keep_activations, swap_parameters

    def forward(self, inputs: Tensor, **context: Any) -> Tensor:
        """The streams from `inputs` on, joined.

        Args:
            inputs: [B, T, D].
            context: given to every function as keywords, such as a mask or a memory to attend to. A tensor here may
                need a gradient; a tensor inside of anything else must not.

        Returns:
            [B, T, D], or [B, T, 2 D] where the streams are concatenated.

        Raises:
            ValueError: for other inputs or context, or a function that cannot be reversed.
        """
        first, second = self.streams(inputs, inputs, **context)
        return (first + second) / 2 if self.join == "mean" else torch.cat([first, second], dim=-1)

    def streams(self, first: Tensor, second: Tensor, **context: Any) -> tuple[Tensor, Tensor]:
        """Both streams [B, T, D] after the stack, from what they are before it; otherwise as `forward`."""
        _check(first, second, context)
        if self.keep_activations:
            return _plain(self._steps(), first, second, context)
        tensors = {name: value for name, value in context.items() if isinstance(value, Tensor)}
        others = {name: value for name, value in context.items() if name not in tensors}
        parameters = tuple(self.parameters())
        call = _Call(self._steps(), parameters, tuple(tensors), others, _autocast_now(first.device.type))
        return _Reversible.apply(call, first, second, *tensors.values(), *parameters)

    @torch.no_grad()
    def invert(self, first: Tensor, second: Tensor, **context: Any) -> tuple[Tensor, Tensor]:
        """What `streams` was given, from what it returned, up to rounding; without dropout, which is drawn anew.

        X2 = Y2 - G(Y1), then X1 = Y1 - F(X2), from the last block to the first.
        """
        _check(first, second, context)
        streams = [first.clone(), second.clone()]
        for step in reversed(self._steps()):
            step.add(step.bound(first.device)[0], streams, context, sign=-1)
        return streams[0], streams[1]

    def _steps(self) -> list[_Step]:
        named = (
            (function, f"function {k} of block {n}")
            for n, block in enumerate(self.blocks)
            for k, function in enumerate(block)
        )
        return [_Step(*pair, index % 2, self.swap_parameters) for index, pair in enumerate(named)]


class ReversibleLayers(nn.Module):
    """Layers for `attn.language_model.LanguageModel`, in the place of its `Stack`: reversible, with a norm at the end.

    Args:
        layers: the sub-layers of each layer, as [[attention, feed_forward], ...], none of which carries a state.
        d_model: D.
        dropout: on the output of each sub-layer.
        chunks: parts along T for the last sub-layer of each layer, the feed-forward one.
        join: as `ReversibleStack`. With "concatenate" the vocabulary has to take 2 D.
        keep_activations: as `ReversibleStack`.
        swap_parameters: as `ReversibleStack`.

    Raises:
        ValueError: as `ReversibleStack` and `ResidualBranch`, or if a sub-layer carries a state.
    """

    def __init__(
        self,
        layers: Iterable[Iterable[nn.Module]],
        *,
        d_model: int,
        dropout: float = 0.0,
        chunks: int = 1,
        join: str = "mean",
        keep_activations: bool = False,
        swap_parameters: bool = False,
    ) -> None:
        super().__init__()
        blocks = []
        for number, sublayers in enumerate(_blocks_of_modules("layers", layers)):
            _refuse_state(number, sublayers)
            counts = [1] * (len(sublayers) - 1) + [chunks]
            blocks.append(
                [
                    ResidualBranch(sublayer, d_model=d_model, dropout=dropout, chunks=count)
                    for sublayer, count in zip(sublayers, counts, strict=False)
                ]
            )
        self.stack = ReversibleStack(
            blocks, join=join, keep_activations=keep_activations, swap_parameters=swap_parameters
        )
        self.norm = nn.LayerNorm(d_model if join == "mean" else 2 * d_model)

    def forward(self, hidden: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Outputs [B, T, D], or [B, T, 2 D] if the streams are concatenated, of hidden states [B, T, D]; no state."""
        if state is not None:
            raise ValueError(
                f"state must be None for reversible layers, which carry none; got {type(state).__name__}"
            )
        return self.norm(self.stack(hidden)), None


# --- One function ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """One function of a stack, which is added to stream `target`, given the other one."""

    function: nn.Module
    name: str
    target: int
    is_swapped: bool

    def parts(self, *pairs: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """Of each pair of streams target and source, in parts along T: views of the same places."""
        chunks = getattr(self.function, "chunks", 1)
        tensors = chain.from_iterable((pair[self.target], pair[1 - self.target]) for pair in pairs)
        return zip(*(tensor.chunk(chunks, dim=1) for tensor in tensors), strict=True)

    def bound(self, device: torch.device, as_leaves: bool = False) -> tuple[Callable, list[tuple]]:
        """What to call, and its trained parameters, each with the tensor in its place whose gradient is asked for."""
        if not self.is_swapped:
            return self.function, [(own, own) for own in self.function.parameters() if own.requires_grad]
        copies, pairs = {}, []
        for name, own in chain(self.function.named_parameters(), self.function.named_buffers()):
            copies[name] = own.to(device, non_blocking=True)
            if own.requires_grad and as_leaves:
                copies[name] = copies[name].detach().requires_grad_()
                pairs.append((own, copies[name]))
        return partial(_call_with, self.function, copies), pairs

    def output(self, call: Callable, source: Tensor, context: Mapping[str, Any]) -> Tensor:
        """What is to be added; ValueError if that cannot be taken away again."""
        version = None if source.is_inference() else source._version
        output = call(source, **context)
        if not isinstance(output, Tensor) or output.shape != source.shape:
            found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"{self.name} must return a tensor of the shape of its input, {list(source.shape)}, to be reversible; "
                f"got {found}"
            )
        if version is not None and source._version != version:
            raise ValueError(
                f"{self.name} must leave its input as it is, to be reversible; it changes it in place"
            )
        return output

    def choices(self, call: Callable, streams: list[Tensor], context: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the function, called as it is bound, decides by name; nothing for most."""
        if not getattr(self.function, "choices", ()):
            return {}
        return call(streams[1 - self.target], choose=True, **context)

    def add(self, call: Callable, streams: list[Tensor], context: Mapping[str, Any], sign: int = 1) -> None:
        """Add the function, called as it is bound, to its stream in place, or take it away."""
        for target, source in self.parts(streams):
            target.add_(self.output(call, source, context), alpha=sign)


def _call_with(function: nn.Module, parameters: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
    return functional_call(function, parameters, args, kwargs)


def _plain(
    steps: Sequence[_Step], first: Tensor, second: Tensor, context: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """The definition, for autograd to follow."""
    streams = [first, second]
    for step in steps:
        call, _ = step.bound(first.device)
        added = [step.output(call, source, context) for _, source in step.parts(streams)]
        added = torch.cat(added, dim=1) if len(added) > 1 else added[0]
        streams[step.target] = streams[step.target] + added.to(first.dtype)
    return streams[0], streams[1]


# --- The stack as one operation ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """What one pass through a stack has to remember besides tensors."""

    steps: Sequence[_Step]
    parameters: tuple[nn.Parameter, ...]
    names: tuple[str, ...]  # of the tensors in the context
    others: Mapping[str, Any]  # the rest of the context
    autocast: Sequence[Mapping[str, Any]]
    choices: list[dict[str, Tensor]] = field(default_factory=list)  # of each step
    random_states: list[tuple] = field(default_factory=list)  # before each step, after its choices

    def remember_random_state(self, like: Tensor) -> None:
        """The state of the CPU's generator and of the device's, as it is now."""
        cpu = torch.get_rng_state()
        if self.random_states and cpu.equal(self.random_states[-1][0]):
            cpu = self.random_states[-1][0]  # 5 kB, once for all functions that draw nothing
        self.random_states.append((cpu, *get_device_states(like)))

    def as_it_was(self) -> ExitStack:
        """Autocast as in the forward pass, whatever it is now.

        Without its cache, which would hold half-precision copies of all layers' weights, and which in older
        versions of torch made weights used here without a graph lose their gradients.
        """
        stack = ExitStack()
        for settings in self.autocast:
            stack.enter_context(torch.autocast(**settings, cache_enabled=False))
        return stack


class _Reversible(torch.autograd.Function):
    """Both streams after the stack; keeps these, the context and nothing in between."""

    @staticmethod
    def forward(ctx, call: _Call, first: Tensor, second: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        context = {**dict(zip(call.names, tensors, strict=False)), **call.others}
        streams = [first.clone(), second.clone()]
        with call.as_it_was():
            for step in call.steps:
                _run(step, call, streams, context)
        ctx.call = call
        ctx.save_for_backward(*streams, *tensors)
        return streams[0], streams[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        call = ctx.call
        first, second, *tensors = ctx.saved_tensors  # raises if one was changed since
        leaves = [
            tensor.detach().requires_grad_(is_needed)
            for tensor, is_needed in zip(tensors[: len(call.names)], ctx.needs_input_grad[3:], strict=False)
        ]
        owners = [*leaves, *call.parameters]
        sums = _Sums(compress(owners, ctx.needs_input_grad[3:]))
        context = {**dict(zip(call.names, leaves, strict=True)), **call.others}
        streams = [first.clone(), second.clone()]
        gradients = [gradient.clone() for gradient in gradients]  # the two may be one tensor
        devices = call.random_states[0][1]
        kind = first.device.type if devices else "cuda"  # any will do where there are no devices
        with call.as_it_was(), torch.random.fork_rng(devices, device_type=kind):
            for index in reversed(range(len(call.steps))):
                cpu, *others = call.random_states[index]
                torch.set_rng_state(cpu)
                set_device_states(*others, device_type=kind)
                _reverse(call.steps[index], streams, gradients, {**context, **call.choices[index]}, sums)
        return None, *gradients, *map(sums.of, owners)


def _run(step: _Step, call: _Call, streams: list[Tensor], context: Mapping[str, Any]) -> None:
    """Let a function decide and then add, and remember what its reversal needs; its parameters are fetched once."""
    function, _ = step.bound(streams[0].device)
    call.choices.append(step.choices(function, streams, context))
    call.remember_random_state(streams[0])
    step.add(function, streams, {**context, **call.choices[-1]})


def _reverse(
    step: _Step, streams: list[Tensor], gradients: list[Tensor], context: Mapping[str, Any], sums: _Sums
) -> None:
    """Take a function away from its stream, and add to all gradients what goes through it; in place."""
    call, pairs = step.bound(streams[0].device, as_leaves=True)
    pairs += [(value, value) for value in context.values() if sums.wants(value)]
    for target, source, from_target, to_source in step.parts(streams, gradients):
        leaf = source.detach().requires_grad_()
        with torch.enable_grad():
            output = step.output(call, leaf, context)
        if output.requires_grad:
            wanted = [leaf, *(used for _, used in pairs)]
            found = torch.autograd.grad(output, wanted, from_target.to(output.dtype), allow_unused=True)
            for (owner, _), gradient in zip(pairs, found[1:], strict=True):
                # a gradient that was only handed on is `from_target` itself, which is about to change
                sums.add(owner, gradient.clone() if _share_memory(gradient, from_target) else gradient)
            if found[0] is not None:
                to_source += found[0]
        target -= output.detach()


def _share_memory(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


class _Sums:
    """Sums of gradients for some tensors, on each one's own device."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = list(tensors)  # alive, so that no other gets their ids
        self._sums: dict[int, Tensor | None] = {id(tensor): None for tensor in self._tensors}

    def wants(self, value: Any) -> bool:
        """Whether this is one of the tensors."""
        return id(value) in self._sums

    def add(self, tensor: Tensor, gradient: Tensor | None) -> None:
        """Add a gradient, if there is one and the tensor is one of these."""
        if gradient is None or not self.wants(tensor):
            return
        before, gradient = self._sums[id(tensor)], gradient.to(tensor.device)
        self._sums[id(tensor)] = gradient if before is None else before + gradient

    def of(self, tensor: Tensor) -> Tensor | None:
        """The sum; None where there is none."""
        return self._sums.get(id(tensor))


def _autocast_now(device_type: str) -> list[dict[str, Any]]:
    """The settings of autocast on this kind of device and on the CPU."""
    kinds = [kind for kind in {device_type, "cpu"} if torch.amp.is_autocast_available(kind)]
    return [
        {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
        }
        for kind in kinds
    ]


# --- Checks ------------------------------------------------------------------------------------------------


def _attends(module: nn.Module) -> bool:
    """Whether it takes from other positions than its own: the attentions of this library and torch's."""
    return hasattr(module, "attend") or isinstance(module, MultiHeadAttention | nn.MultiheadAttention)


def _blocks_of_modules(name: str, blocks: Iterable[Iterable[nn.Module]]) -> list[list[nn.Module]]:
    """The blocks as lists; ValueError unless each is a sequence of modules."""
    if not isinstance(blocks, Iterable):
        raise ValueError(f"{name} must be sequences of modules; got {type(blocks).__name__}")
    found = []
    for number, block in enumerate(blocks):
        if not isinstance(block, Iterable):
            raise ValueError(
                f"{name} must be sequences of modules; number {number} is one {type(block).__name__}, not in a sequence"
            )
        found.append(list(block))
        for place, function in enumerate(found[-1]):
            if not isinstance(function, nn.Module):
                raise ValueError(
                    f"{name} must hold modules of torch.nn; number {place} of number {number} is a "
                    f"{type(function).__name__}"
                )
    return found


def _refuse_statistics(blocks: nn.ModuleList) -> None:
    """ValueError if a module keeps running statistics: the backward pass would count every batch a second time."""
    for number, block in enumerate(blocks):
        for module in block.modules():
            if isinstance(module, _NormBase) and module.track_running_stats:
                raise ValueError(
                    f"blocks must hold nothing that a call changes; block {number} has a {type(module).__name__}, whose "
                    "running statistics the backward pass would update once more: set track_running_stats=False"
                )


def _refuse_state(number: int, sublayers: Sequence[nn.Module]) -> None:
    """ValueError if one of a layer's sub-layers carries a state."""
    for place, sublayer in enumerate(sublayers):
        if carries_state(sublayer):
            raise ValueError(
                f"layers must hold sub-layers without a state to be reversible; sub-layer {place} of layer {number}, "
                f"{type(sublayer).__name__}, carries one: take attn.language_model.Stack, which keeps activations"
            )


def _check(first: Tensor, second: Tensor, context: Mapping[str, Any]) -> None:
    check_sequence("inputs", first, first.shape[-1] if first.dim() else 0)
    if not first.is_floating_point():
        raise ValueError(f"inputs must hold floating-point numbers; got {first.dtype}")
    if (second.shape, second.dtype) != (first.shape, first.dtype):
        raise ValueError(
            f"both streams must be alike; got {first.dtype} of shape {list(first.shape)} and {second.dtype} of shape "
            f"{list(second.shape)}"
        )
    for name, value in context.items():
        if not isinstance(value, Tensor) and torch.is_grad_enabled() and _holds_gradient(value):
            raise ValueError(
                f"context {name!r} must be a tensor to get a gradient; got {type(value).__name__} that holds one"
            )


def _holds_gradient(value: Any) -> bool:
    """Whether a tensor in `value` needs a gradient."""
    if isinstance(value, Tensor):
        return value.requires_grad
    inner = value.values() if isinstance(value, Mapping) else value
    return (
        isinstance(value, Mapping | Sequence)
        and not isinstance(value, str)
        and any(map(_holds_gradient, inner))
    )
