"""Neural Turing Machine (Graves, Wayne and Danihelka 2014, arXiv:1410.5401) and its LSTM baseline.

The mathematics of Sec. 3 comes first, as pure batched functions; the modules that own parameters follow.

Shapes: B batch, T time steps, R read heads, W write heads, H = R + W heads, N memory slots (`n_slots`),
D width of a slot (`slot_dim`, the paper's M), S = 2 * shift_range + 1 shifts, C controller width.
A weighting is non-negative and sums to 1 over the N slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature, unwrap
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn.kernels import ntm as compiled
from attn.kernels import ntm_graphs as graphs
from attn.ntm_scan.scan import scan
from attn.ntm_scan.sequence import Sizes, Start, full_precision

# Added to a squared norm before the root: the cosine of a (nearly) empty slot is 0 and its gradient at most
# 1 / sqrt(NORM_EPS) = 1000, where the bare formula would divide by zero.
NORM_EPS = 1e-6
# Floor under a weight before its logarithm is taken: w ** gamma has an infinite gradient at w = 0 for gamma
# just above 1, and float32 powers of small weights would underflow to 0 / 0 in the normalisation.
WEIGHT_FLOOR = 1e-16
# Every slot starts at this value: small, so that it hardly shows in a read, and the same in every slot, so
# that the number of parameters does not depend on the number of slots.
INITIAL_MEMORY = 1e-6
# How heads start is a choice that the paper leaves open. It was meant for heads to differ from the start, and not to
# blur their weightings anew at every step, which would leave nothing to learn a location from. On copy it has no
# measured benefit over Xavier's bounds and zero biases (the facts' deviation head_initialisation).
HEAD_GAIN = 1.4  # of the initial weights
HEAD_FOCUS = 2.0  # start of strengths, and of exponents above 1, before their softplus (so about 2.1)
# Ways to run the loop over time, see `NTM`: those that some tensors hinder, then those that run with any.
_FAST = {"compiled": compiled, "graph": graphs}
_PLAIN = {"scan": scan, "loop": None}
PATHS = ("auto", *_FAST, *_PLAIN)


# --- What the functions take -----------------------------------------------------------------------------

_DIMENSIONS = dict(B="batch", R="heads", W="heads", H="heads", N="slots", D="width", S="shifts")


def _check_shapes(tensors: Mapping[str, Any], shapes: Mapping[str, str]) -> None:
    """Refuse what is no floating-point tensor of its shape: a letter a dimension, of one size throughout a call."""
    known: dict[str, int] = {}
    for name, letters in shapes.items():
        if name not in tensors:  # Python says that an argument is missing
            continue
        tensor = tensors[name]
        is_real = isinstance(tensor, Tensor) and tensor.is_floating_point()
        sizes = tuple(tensor.shape) if is_real else ()
        fits = len(sizes) == len(letters)
        if not fits or any(known.get(a, n) != n for a, n in zip(letters, sizes, strict=True)):
            wanted = ", ".join(str(known.get(letter, _DIMENSIONS[letter])) for letter in letters)
            found = list(sizes) if is_real else getattr(tensor, "dtype", type(tensor).__name__)
            raise ValueError(f"{name} must be a floating-point tensor of shape [{wanted}]; got {found}")
        known.update(zip(letters, sizes, strict=True))


def _takes(**shapes: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Checks the tensors of a call, by `_check_shapes`. `unwrap` gives the function without the check."""

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        names = tuple(signature(function).parameters)

        @wraps(function)
        def checked(*tensors: Tensor, **named: Tensor) -> Tensor:
            _check_shapes(dict(zip(names, tensors, strict=False)) | named, shapes)
            return function(*tensors, **named)

        return checked

    return decorate


# --- Sec. 3.1 and 3.2: reading and writing --------------------------------------------------------------


@_takes(memory="BND", weights="BRN")
def read(memory: Tensor, weights: Tensor) -> Tensor:
    """Read vectors r = sum_i w(i) M(i) (eq. 2).

    Args:
        memory: [B, N, D].
        weights: weightings of the read heads [B, R, N].

    Returns:
        One vector per head [B, R, D].

    Raises:
        ValueError: if an argument has another shape, or is no floating-point tensor.
    """
    return torch.bmm(weights, memory)


@_takes(memory="BND", weights="BWN", erase="BWD", add="BWD")
def write(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """Memory after all heads have erased and then all heads have added (eqs. 3 and 4).

    Args:
        memory: [B, N, D]; not modified.
        weights: weightings of the write heads [B, W, N].
        erase: erase vectors in (0, 1) [B, W, D].
        add: add vectors [B, W, D].

    Returns:
        The new memory [B, N, D].

    Raises:
        ValueError: if an argument has another shape, or is no floating-point tensor.
    """
    for head in range(weights.shape[1]):
        # M - M * (w e^T): the rank-one product and the update are the only tensors of the memory's size
        erased = torch.bmm(weights[:, head, :, None], erase[:, head, None, :])  # [B, N, D]
        memory = torch.addcmul(memory, memory, erased, value=-1)
    return torch.baddbmm(memory, weights.transpose(1, 2), add)


# --- Sec. 3.3: addressing --------------------------------------------------------------------------------


@_takes(memory="BND", key="BHD", strength="BH")
def content_weights(memory: Tensor, key: Tensor, strength: Tensor) -> Tensor:
    """Softmax over slots of strength times cosine similarity (eqs. 5 and 6).

    Args:
        memory: [B, N, D].
        key: [B, H, D].
        strength: beta, above 0 [B, H].

    Returns:
        Weightings [B, H, N].

    Raises:
        ValueError: if an argument has another shape, or is no floating-point tensor.
    """
    memory_norm = (memory.square().sum(-1) + NORM_EPS).rsqrt()  # [B, N], inverse norms
    key_norm = (key.square().sum(-1) + NORM_EPS).rsqrt()  # [B, H]
    dot = torch.bmm(key, memory.transpose(1, 2))  # [B, H, N]
    return torch.softmax(dot * (strength * key_norm).unsqueeze(-1) * memory_norm.unsqueeze(1), dim=-1)


@_takes(content="BHN", previous="BHN", gate="BH")
def interpolate(content: Tensor, previous: Tensor, gate: Tensor) -> Tensor:
    """Gate 1 takes the content weighting, gate 0 keeps the previous one (eq. 7).

    Args:
        content: weightings by content [B, H, N].
        previous: weightings of the previous step [B, H, N].
        gate: g in (0, 1) [B, H].

    Returns:
        Weightings [B, H, N].

    Raises:
        ValueError: if an argument has another shape, or is no floating-point tensor.
    """
    return torch.lerp(previous, content, gate.unsqueeze(-1))


@_takes(weights="BHN", shift="BHS")
def circular_shift(weights: Tensor, shift: Tensor) -> Tensor:
    """Circular convolution of each weighting with its shift distribution (eq. 8).

    Args:
        weights: [B, H, N].
        shift: distribution over the shifts -r ... r, ascending [B, H, S] with S = 2 r + 1.

    Returns:
        Weightings [B, H, N]: slot i receives sum_o shift(o) weights(i - o mod N).

    Raises:
        ValueError: if S is even or wider than the memory, an argument has another shape, or is no floating-point tensor.
    """
    n_slots, n_shifts = weights.shape[-1], shift.shape[-1]
    if n_shifts % 2 == 0 or n_shifts > n_slots:
        raise ValueError(
            f"shift must hold an odd number of shifts, at most the {n_slots} slots of the memory; got {n_shifts}"
        )
    reach = n_shifts // 2
    padded = torch.cat(
        [weights[..., n_slots - reach :], weights, weights[..., :reach]], dim=-1
    )  # [B, H, N + 2r]
    windows = padded.unfold(-1, n_shifts, 1)  # [B, H, N, S], window i holds slots i - r ... i + r
    return torch.matmul(windows, shift.flip(-1).unsqueeze(-1)).squeeze(-1)


@_takes(weights="BHN", exponent="BH")
def sharpen(weights: Tensor, exponent: Tensor) -> Tensor:
    """Raise to a power and normalise (eq. 9), computed on logarithms so that no power underflows.

    Args:
        weights: [B, H, N].
        exponent: gamma, at least 1 [B, H].

    Returns:
        Weightings [B, H, N].

    Raises:
        ValueError: if an argument has another shape, or is no floating-point tensor.
    """
    return torch.softmax(exponent.unsqueeze(-1) * weights.clamp_min(WEIGHT_FLOOR).log(), dim=-1)


class HeadOutputs(NamedTuple):
    """What the heads emit at one time step, in the ranges the equations ask for (Sec. 3.1 to 3.3)."""

    key: Tensor  # [B, H, D], in (-1, 1)
    strength: Tensor  # [B, H], above 0
    gate: Tensor  # [B, H], in (0, 1)
    shift: Tensor  # [B, H, S], a distribution
    exponent: Tensor  # [B, H], at least 1
    erase: Tensor  # [B, W, D], in (0, 1)
    add: Tensor  # [B, W, D], in (-1, 1)


def address(memory: Tensor, previous: Tensor, heads: HeadOutputs) -> Tensor:
    """The four addressing steps in order (fig. 2): content, interpolation, shift, sharpening.

    Args:
        memory: [B, N, D].
        previous: weightings of the previous step [B, H, N].
        heads: this step's head outputs.

    Returns:
        New weightings [B, H, N].

    Raises:
        ValueError: if `heads` is something else, or a tensor has another shape or no floating-point numbers.
    """
    if not isinstance(heads, HeadOutputs):
        raise ValueError(f"heads must be HeadOutputs; got {type(heads).__name__}")
    _check_shapes({"memory": memory, "previous": previous, **heads._asdict()}, _ADDRESSED)
    return _address(memory, previous, heads)


_ADDRESSED = dict(
    memory="BND", previous="BHN", key="BHD", strength="BH", gate="BH", shift="BHS", exponent="BH"
)
# What a step of the machine calls: the same without the checks, which the machine makes once a sequence.
_read, _write, _content_weights, _interpolate, _circular_shift, _sharpen = map(
    unwrap, (read, write, content_weights, interpolate, circular_shift, sharpen)
)


def _address(memory: Tensor, previous: Tensor, heads: HeadOutputs) -> Tensor:
    content = _content_weights(memory, heads.key, heads.strength)
    gated = _interpolate(content, previous, heads.gate)
    return _sharpen(_circular_shift(gated, heads.shift), heads.exponent)


# --- Modules ---------------------------------------------------------------------------------------------


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if not _is_whole(size) or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {size!r}")


def _check_inputs(inputs: Tensor, n_inputs: int) -> None:
    if not isinstance(inputs, Tensor) or inputs.is_complex():
        found = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(f"inputs must be a tensor of real numbers [batch, time, {n_inputs}]; got {found}")
    if inputs.dim() != 3 or inputs.shape[-1] != n_inputs:
        raise ValueError(f"inputs must have shape [batch, time, {n_inputs}]; got {list(inputs.shape)}")
    if not inputs.shape[0] or not inputs.shape[1]:
        raise ValueError(f"inputs must hold at least one sequence of one time step; got {list(inputs.shape)}")


def _check_state(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Every part of a state must have its shape."""
    for name, shape in shapes.items():
        found = tensors.get(name)
        what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if what != list(shape):
            raise ValueError(f"state must have a tensor {name} of shape {list(shape)}; got {what}")
    if len(tensors) != len(shapes):
        raise ValueError(f"state must have {len(shapes)} tensors; got {len(tensors)}")


class Heads(nn.Module):
    """One linear map from the controller to everything that all heads emit.

    Args:
        controller_size: C.
        slot_dim: D.
        n_read_heads: R.
        n_write_heads: W.
        shift_range: largest shift r; the heads choose among -r ... r.
    """

    def __init__(
        self, *, controller_size: int, slot_dim: int, n_read_heads: int, n_write_heads: int, shift_range: int
    ) -> None:
        super().__init__()
        self.n_heads, self.n_write_heads, self.slot_dim = (
            n_read_heads + n_write_heads,
            n_write_heads,
            slot_dim,
        )
        self.n_shifts = 2 * shift_range + 1
        # Values that share a non-linearity lie side by side, so that each is applied once to one slice.
        self._tanh = (self.n_heads + n_write_heads) * slot_dim  # keys, adds
        self._sigmoid = self.n_heads + n_write_heads * slot_dim  # gates, erases
        self._softplus = 2 * self.n_heads  # strengths, exponents
        self._shift = self.n_heads * self.n_shifts
        self.linear = nn.Linear(controller_size, self._tanh + self._sigmoid + self._softplus + self._shift)
        nn.init.xavier_uniform_(self.linear.weight, gain=HEAD_GAIN)
        nn.init.zeros_(self.linear.bias)
        start = self._tanh + self._sigmoid
        nn.init.constant_(self.linear.bias[start : start + self._softplus], HEAD_FOCUS)

    def forward(self, hidden: Tensor) -> HeadOutputs:
        """Head outputs for controller outputs `hidden` [B, C]."""
        n_heads, dim, batch = self.n_heads, self.slot_dim, hidden.shape[0]
        parts = self.linear(hidden).split([self._tanh, self._sigmoid, self._softplus, self._shift], dim=-1)
        vectors = torch.tanh(parts[0]).view(batch, -1, dim)  # [B, H + W, D]
        gates = torch.sigmoid(parts[1])
        positive = F.softplus(parts[2])
        return HeadOutputs(
            key=vectors[:, :n_heads],
            strength=positive[:, :n_heads],
            gate=gates[:, :n_heads],
            shift=torch.softmax(parts[3].view(batch, n_heads, self.n_shifts), dim=-1),
            exponent=1 + positive[:, n_heads:],
            erase=gates[:, n_heads:].view(batch, self.n_write_heads, dim),
            add=vectors[:, n_heads:],
        )


class LSTMController(nn.Module):
    """LSTM layers that see the external input, the last reads, and from the second layer on the layer below.

    Gates are ordered input, forget, output, candidate; one bias per gate; the initial hidden and cell states
    are learned, 2C values a layer.

    Args:
        n_inputs: width of the external input.
        read_size: width R * D of the concatenated read vectors.
        size: C, units per layer.
        n_layers: number of layers.
    """

    def __init__(self, *, n_inputs: int, read_size: int, size: int, n_layers: int = 1) -> None:
        super().__init__()
        _check_positive(n_inputs=n_inputs, read_size=read_size, size=size, n_layers=n_layers)
        self.size = size
        self.inputs = nn.ModuleList(nn.Linear(n_inputs, 4 * size) for _ in range(n_layers))
        below = [read_size] + [read_size + size] * (n_layers - 1)
        self.recurrent = nn.ModuleList(nn.Linear(width + size, 4 * size, bias=False) for width in below)
        self.initial = nn.Parameter(torch.empty(n_layers, 2, size))
        bound = size**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Hidden and cell state of every layer, alternating, each [B, C]."""
        return tuple(state.expand(batch, -1) for layer in self.initial for state in layer)

    def recurrent_weights(self) -> tuple[Tensor, ...]:
        """Per layer [4C, width of what it sees]."""
        return tuple(layer.weight for layer in self.recurrent)

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """What the inputs [B, T, n_inputs] add to the gates, for all time steps at once: per layer [T, B, 4C]."""
        return tuple(layer(inputs).transpose(0, 1).contiguous() for layer in self.inputs)

    def step(
        self, projected: tuple[Tensor, ...], reads: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One time step.

        Args:
            projected: this step's slice of `project`, per layer [B, 4C].
            reads: concatenated read vectors of the previous step [B, R * D].
            state: as `initial_state`.

        Returns:
            The top layer's hidden state [B, C] and the new state.
        """
        new_state: list[Tensor] = []
        below = reads
        for index, layer in enumerate(self.recurrent):
            hidden, cell = state[2 * index], state[2 * index + 1]
            gates = torch.addmm(projected[index], torch.cat([below, hidden], dim=-1), layer.weight.t())
            open_gates = torch.sigmoid(gates[:, : 3 * self.size])
            enter, keep, out = open_gates.chunk(3, dim=-1)
            cell = torch.addcmul(keep * cell, enter, torch.tanh(gates[:, 3 * self.size :]))
            hidden = out * torch.tanh(cell)
            new_state += [hidden, cell]
            below = torch.cat([reads, hidden], dim=-1) if index + 1 < len(self.recurrent) else hidden
        return below, tuple(new_state)


class FeedForwardController(nn.Module):
    """One tanh layer over the external input and the last reads; all memory is in the NTM's matrix.

    Args: as `LSTMController`, with a single layer.
    """

    def __init__(self, *, n_inputs: int, read_size: int, size: int) -> None:
        super().__init__()
        _check_positive(n_inputs=n_inputs, read_size=read_size, size=size)
        self.input = nn.Linear(n_inputs, size)
        self.recurrent = nn.Linear(read_size, size, bias=False)

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """No state."""
        return ()

    def recurrent_weights(self) -> tuple[Tensor, ...]:
        """One matrix [C, R * D]."""
        return (self.recurrent.weight,)

    def project(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """What the inputs [B, T, n_inputs] add before the non-linearity: one tensor [T, B, C]."""
        return (self.input(inputs).transpose(0, 1).contiguous(),)

    def step(
        self, projected: tuple[Tensor, ...], reads: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One time step; arguments and returns as in `LSTMController.step`."""
        return torch.tanh(torch.addmm(projected[0], reads, self.recurrent.weight.t())), state


class NTMState(NamedTuple):
    """Everything carried from one time step to the next."""

    controller: tuple[Tensor, ...]
    reads: Tensor  # [B, R * D]
    weights: Tensor  # [B, H, N], read heads first
    memory: Tensor  # [B, N, D]


class NTMTrace(NamedTuple):
    """What happened inside, one entry a time step."""

    weights: Tensor  # [B, T, H, N], read heads first
    reads: Tensor  # [B, T, R * D]
    add: Tensor  # [B, T, W, D]
    erase: Tensor  # [B, T, W, D]
    gate: Tensor  # [B, T, H]
    memory: Tensor  # [B, T, N, D], after the step's write


class NTM(nn.Module):
    """Neural Turing Machine (Sec. 3).

    In one time step the controller sees the input and the previous reads; all heads are addressed on the
    memory as the previous step left it; the write heads erase and add; the read heads read the new memory
    (eq. 2 reads M_t). Logits come from the controller's output and the new reads.

    Args:
        n_inputs: width of the external input.
        n_outputs: number of binary outputs.
        controller: "lstm" or "feedforward".
        controller_size: C, units a layer.
        controller_layers: LSTM layers (1 for the feed-forward controller).
        n_slots: N.
        slot_dim: D.
        n_read_heads: R.
        n_write_heads: W.
        shift_range: largest shift; the paper's example is 1.
        path: how to run the loop over time; the numbers are the same to rounding.
            "loop": `step` after `step`, as the paper has it; `trace` always runs so.
            "scan": one function with a backward pass written by hand (`attn.ntm_scan`), in about half the time, but
            without second derivatives.
            "compiled": the same function in loops that numba compiles (`attn.kernels.ntm`), several times as fast
            again on small batches, for float32 or float64 on a CPU; the first sequence waits for the compiler
            for some seconds, once a machine.
            "graph": the same function on a GPU, whose whole sequence is launched at once as a CUDA graph
            (`attn.kernels.ntm_graphs`); each length and batch size is recorded on first use. It has not been run on a
            GPU yet: no record was made with it, and the tests put a stand-in in the place of the recording.
            "auto": "compiled" or "graph" where it can run, else "scan".

    Raises:
        ValueError: for a size below 1, an unknown controller or path, or shifts that exceed the memory.
    """

    def __init__(
        self,
        *,
        n_inputs: int,
        n_outputs: int,
        controller: str = "lstm",
        controller_size: int = 100,
        controller_layers: int = 1,
        n_slots: int = 128,
        slot_dim: int = 20,
        n_read_heads: int = 1,
        n_write_heads: int = 1,
        shift_range: int = 1,
        path: str = "auto",
    ) -> None:
        super().__init__()
        _check_positive(
            n_inputs=n_inputs, n_outputs=n_outputs, controller_size=controller_size, n_slots=n_slots,
            controller_layers=controller_layers, slot_dim=slot_dim, n_read_heads=n_read_heads,
            n_write_heads=n_write_heads,
        )  # fmt: skip
        if not _is_whole(shift_range) or shift_range < 0 or 2 * shift_range + 1 > n_slots:
            raise ValueError(
                f"shift_range must be a whole number from 0 to {(n_slots - 1) // 2}, so that its shifts fit the "
                f"{n_slots} slots; got {shift_range!r}"
            )
        self.n_inputs, self.n_outputs = n_inputs, n_outputs
        self.n_slots, self.slot_dim, self.n_read_heads = n_slots, slot_dim, n_read_heads
        read_size = n_read_heads * slot_dim
        sizes = dict(n_inputs=n_inputs, read_size=read_size, size=controller_size)
        if controller == "lstm":
            self.controller = LSTMController(**sizes, n_layers=controller_layers)
        elif controller == "feedforward":
            if controller_layers != 1:
                raise ValueError(
                    f"controller_layers must be 1 with controller='feedforward'; got {controller_layers}"
                )
            self.controller = FeedForwardController(**sizes)
        else:
            raise ValueError(f"controller must be 'lstm' or 'feedforward'; got {controller!r}")
        self.heads = Heads(
            controller_size=controller_size, slot_dim=slot_dim, n_read_heads=n_read_heads,
            n_write_heads=n_write_heads, shift_range=shift_range,
        )  # fmt: skip
        self.output = nn.Linear(controller_size + read_size, n_outputs)
        if path not in PATHS:
            raise ValueError(f"path must be one of {', '.join(map(repr, PATHS))}; got {path!r}")
        self.path = path
        self._sizes = Sizes(
            n_read_heads=n_read_heads, n_write_heads=n_write_heads, slot_dim=slot_dim,
            n_shifts=self.heads.n_shifts, is_lstm=controller == "lstm", norm_eps=NORM_EPS,
            weight_floor=WEIGHT_FLOOR,
        )  # fmt: skip

    def initial_state(self, batch: int) -> NTMState:
        """The state at the start of a sequence: constant memory, empty reads, all heads on slot 0."""
        like = self.output.weight
        weights = like.new_zeros(batch, self.heads.n_heads, self.n_slots)
        weights[..., 0] = 1
        return NTMState(
            controller=self.controller.initial_state(batch),
            reads=like.new_zeros(batch, self.n_read_heads * self.slot_dim),
            weights=weights,
            memory=like.new_full((batch, self.n_slots, self.slot_dim), INITIAL_MEMORY),
        )

    def _check_state(self, state: NTMState, batch: int) -> None:
        if not isinstance(state, NTMState) or not isinstance(state.controller, tuple):
            raise ValueError(
                f"state must be an NTMState with a tuple of controller states, or None; got {type(state).__name__}"
            )
        layers = self.controller.initial_state(batch)
        shapes = {f"controller[{index}]": layer.shape for index, layer in enumerate(layers)} | {
            "reads": (batch, self.n_read_heads * self.slot_dim),
            "weights": (batch, self.heads.n_heads, self.n_slots),
            "memory": (batch, self.n_slots, self.slot_dim),
        }
        found = {f"controller[{index}]": layer for index, layer in enumerate(state.controller)}
        found |= {"reads": state.reads, "weights": state.weights, "memory": state.memory}
        _check_state(found, shapes)

    def step(self, projected: tuple[Tensor, ...], state: NTMState) -> tuple[Tensor, HeadOutputs, NTMState]:
        """One time step: controller output [B, C], what the heads emitted, and the new state."""
        hidden, controller = self.controller.step(projected, state.reads, state.controller)
        heads = self.heads(hidden)
        weights = _address(state.memory, state.weights, heads)
        memory = _write(state.memory, weights[:, self.n_read_heads :], heads.erase, heads.add)
        reads = _read(memory, weights[:, : self.n_read_heads]).flatten(1)
        return hidden, heads, NTMState(controller, reads, weights, memory)

    def forward(
        self, inputs: Tensor, state: NTMState | None = None, *, trace: bool = False
    ) -> tuple[Tensor, NTMState] | tuple[Tensor, NTMState, NTMTrace]:
        """Run over a batch of sequences.

        Args:
            inputs: [B, T, n_inputs], of any real dtype; shorter sequences are padded at the end, where the causal
                recurrence cannot touch the outputs before.
            state: carried from an earlier call, or None for `initial_state`.
            trace: also return what happened inside (needs T times the memory).

        Returns:
            Logits [B, T, n_outputs], the final state, and with `trace` an `NTMTrace`. All of them run to the last step
            for every sequence: the logits of a shorter one's padding are for the loss to leave out, and its final state
            has run through the padding. Give it alone, unpadded, to carry its state on.

        Raises:
            ValueError: if `inputs` or `state` has another shape, `inputs` is not of real numbers, the weights are
                float16, or "compiled" or "graph" is asked for and cannot run.
        """
        _check_inputs(inputs, self.n_inputs)
        dtype = self.output.weight.dtype
        if dtype == torch.float16:
            raise ValueError(
                f"the weights must be float32, float64 or bfloat16, because float16 cannot hold {WEIGHT_FLOOR} "
                f"(WEIGHT_FLOOR); got {dtype}"
            )
        if state is None:
            state = self.initial_state(inputs.shape[0])
        else:
            self._check_state(state, inputs.shape[0])
        with full_precision(inputs.device.type):
            inputs = inputs.to(dtype)
            run = None if trace else self._function(state)
            return self._loop(inputs, state, trace) if run is None else self._scan(run, inputs, state)

    def _function(self, state: NTMState) -> Callable[[Start, Sizes], tuple[Tensor, ...]] | None:
        """What runs the loop in one function, as `path` says, or None for `step` after `step`."""
        if self.path in _PLAIN:
            return _PLAIN[self.path]
        started = (self.output.weight, *state.controller, *state[1:])
        for path in _FAST if self.path == "auto" else (self.path,):
            hinders = _FAST[path].obstacle(*started)
            if hinders is None:
                return _FAST[path].run
        if self.path == "auto":
            return scan
        raise ValueError(f"path={self.path!r} cannot run here: {hinders}")

    def _scan(
        self, run: Callable[[Start, Sizes], tuple[Tensor, ...]], inputs: Tensor, state: NTMState
    ) -> tuple[Tensor, NTMState]:
        """The whole loop in one function with its own backward pass."""
        start = Start(
            projected=self.controller.project(inputs),
            recurrent=self.controller.recurrent_weights(),
            head_weight=self.heads.linear.weight,
            head_bias=self.heads.linear.bias,
            **state._asdict(),
        )
        outputs, *controller, reads, weights, memory = run(start, self._sizes)
        logits = self.output(outputs.transpose(0, 1))
        return logits, NTMState(tuple(controller), reads, weights, memory)

    def _loop(self, inputs: Tensor, state: NTMState, trace: bool):
        """The definition: one `step` after the other."""
        projected = [layer.unbind(0) for layer in self.controller.project(inputs)]
        outputs, steps = [], []
        for now in zip(*projected, strict=True):
            hidden, heads, state = self.step(now, state)
            outputs.append(torch.cat([hidden, state.reads], dim=-1))
            if trace:
                steps.append((state.weights, state.reads, heads.add, heads.erase, heads.gate, state.memory))
        logits = self.output(torch.stack(outputs, dim=1))  # outside the loop: one product for all steps
        if not trace:
            return logits, state
        return logits, state, NTMTrace(*(torch.stack(series, dim=1) for series in zip(*steps, strict=True)))


class LSTMBaseline(nn.Module):
    """The paper's baseline: stacked LSTM layers with skip connections (table 3).

    Every layer sees the external input, layers above the first also the layer below, and every layer feeds
    the output. One bias per gate and learned initial states: with these the printed parameter counts are met
    to the unit. The bias is the weight of a constant input, because torch's own LSTM would hold two.

    Args:
        n_inputs: width of the external input.
        n_outputs: number of binary outputs.
        size: C, units a layer.
        n_layers: number of layers.

    Raises:
        ValueError: for a size below 1.
    """

    def __init__(self, *, n_inputs: int, n_outputs: int, size: int = 256, n_layers: int = 3) -> None:
        super().__init__()
        _check_positive(n_inputs=n_inputs, n_outputs=n_outputs, size=size, n_layers=n_layers)
        self.n_inputs, self.n_outputs, self.size = n_inputs, n_outputs, size
        widths = [n_inputs + 1] + [n_inputs + 1 + size] * (n_layers - 1)
        self.layers = nn.ModuleList(nn.LSTM(width, size, bias=False, batch_first=True) for width in widths)
        self.initial = nn.Parameter(torch.empty(n_layers, 2, size))
        nn.init.uniform_(self.initial, -(size**-0.5), size**-0.5)
        self.output = nn.Linear(n_layers * size, n_outputs)

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over a batch of sequences.

        Args:
            inputs: [B, T, n_inputs], of any real dtype.
            state: hidden and cell state of every layer, alternating, each [1, B, C]; None for the learned start.

        Returns:
            Logits [B, T, n_outputs] and the final state.

        Raises:
            ValueError: if `inputs` or `state` has another shape, or `inputs` is not of real numbers.
        """
        _check_inputs(inputs, self.n_inputs)
        batch, inputs = inputs.shape[0], inputs.to(self.output.weight.dtype)
        if state is None:
            state = tuple(s.expand(1, batch, -1).contiguous() for layer in self.initial for s in layer)
        elif not isinstance(state, tuple):
            raise ValueError(f"state must be a tuple of tensors or None; got {type(state).__name__}")
        shapes = {f"[{index}]": (1, batch, self.size) for index in range(2 * len(self.layers))}
        _check_state({f"[{index}]": part for index, part in enumerate(state)}, shapes)
        seen = torch.cat([inputs, inputs.new_ones(*inputs.shape[:2], 1)], dim=-1)
        below, hiddens, new_state = seen, [], []
        for index, layer in enumerate(self.layers):
            hidden, last = layer(below, (state[2 * index], state[2 * index + 1]))
            hiddens.append(hidden)
            new_state += last
            below = torch.cat([seen, hidden], dim=-1)
        return self.output(torch.cat(hiddens, dim=-1)), tuple(new_state)


def parameter_count(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
