"""The Neural Turing Machine's loop over time as compiled loops over numbers.

The functions `forward` and `backward` at the end of this file are what `attn.kernels.ntm` calls; the arithmetic is that
of `attn.ntm_scan`, part by part and under the same names. A time step is some tens of thousands of multiplications:
torch spends nearly all of it on calling operations, of which there are none here.

What keeps the loops quick:

- Inner loops run along rows that lie side by side: the N slots, or the outputs of a matrix. Two primitives hold most of
  the work, `add_product` and `add_dots`; the first takes eight rows of the matrix at a time and all sequences of the
  batch before the next eight, so that those rows stay in the processor's first cache.
- Sums may be taken in another order and products be fused with sums (FAST), but nothing assumes that numbers are
  finite: a gradient that is not must still show.
- float32 has an exponential, a logarithm and a tanh of its own, which compile to vector instructions; those of the
  standard library are calls, one number at a time, and serve float64.

Every literal takes the arrays' type, by `zero` and `one`: a Python number would turn float32 into float64. This file
imports numba, so nothing but `attn.kernels.ntm` imports it, and that only when it is needed. All compiled code stands
in this one file, because the compiled functions that numba keeps on disk are renewed when the file that holds them
changes, and not when another does.

Shapes are those of `attn.ntm` and `attn.ntm_scan`. Further letters: L layers of the controller, G = 4C values of a
layer's gates (LSTM) or its C units (feed-forward), F width of what a layer sees.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numba.extending import overload

FAST = {"reassoc", "contract", "arcp", "nsz"}
part = njit(fastmath=FAST, error_model="numpy")
# Inlined early: a call counts references to the arrays that it passes, which takes longer than a short loop.
small = njit(fastmath=FAST, error_model="numpy", forceinline=True)
# No regrouping: it would undo the reduction of the range in two steps.
exact = njit(fastmath={"contract"}, error_model="numpy", forceinline=True)


def entry(function):
    """Compile when first called, and keep the result on disk where a folder can be written."""
    options = {"fastmath": FAST, "error_model": "numpy", "nogil": True}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder for it
        return njit(**options)(function)


# --- Exponential, logarithm, tanh ------------------------------------------------------------------------

_ONE, _HALF, _ZERO = np.float32(1), np.float32(0.5), np.float32(0)
_LOG2_E = np.float32(math.log2(math.e))
# ln 2 in two parts: the first has few digits, so that a whole number times it is exact.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Below this the exponential is 0, so that no number comes near the subnormal ones, which are slow.
EXP_LOWEST = np.float32(-80)
_SQRT_2 = np.float32(math.sqrt(2))
_SMALL = np.float32(0.625)
_LEAST, _ALL_BUT_SIGN = np.int32(-(2**31)), np.int32(2**31 - 1)
# The coefficients of Cephes (S. L. Moshier), highest power first.
_EXP = tuple(
    map(np.float32, (1.98756915e-4, 1.39819995e-3, 8.33345191e-3, 4.16657959e-2, 1.66666655e-1, 0.5))
)
_LOG = tuple(map(np.float32, (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1,
                              1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1,
                              3.3333331174e-1)))  # fmt: skip
_TANH = tuple(map(np.float32, (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1,
                               -3.33332819422e-1)))  # fmt: skip


def exp(x):
    """e to the power of x, for x at most 0; in float32 to 1 unit in the last place, and 0 below EXP_LOWEST."""
    return math.exp(x)


def log(x):
    """Natural logarithm of a normal number above 0; in float32 to 2 units in the last place."""
    return math.log(x)


def tanh(x):
    """Hyperbolic tangent; in float32 to 2 units in the last place."""
    return math.tanh(x)


def largest(values):
    """The largest of the values; not a number if one of them is none."""
    return values.max()


@exact
def _exp32(x):
    n = np.int32(x * _LOG2_E - _HALF)  # rounds towards 0, and x is not above it: the nearest whole number
    whole = np.float32(n)
    r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW  # at most ln(2) / 2 either way
    p = ((((_EXP[0] * r + _EXP[1]) * r + _EXP[2]) * r + _EXP[3]) * r + _EXP[4]) * r + _EXP[5]
    power = np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)  # 2 to the n, by its exponent bits
    return _ZERO if x < EXP_LOWEST else (p * (r * r) + r + _ONE) * power


@exact
def _log32(x):
    bits = np.float32(x).view(np.int32)
    exponent = np.int32((bits >> np.int32(23)) - np.int32(127))
    m = np.int32((bits & np.int32(0x007FFFFF)) | np.int32(0x3F800000)).view(np.float32)  # in [1, 2)
    above = m > _SQRT_2
    m = m * _HALF if above else m
    whole = np.float32(exponent) + (_ONE if above else _ZERO)
    r = m - _ONE
    p = (((_LOG[0] * r + _LOG[1]) * r + _LOG[2]) * r + _LOG[3]) * r + _LOG[4]
    p = (((p * r + _LOG[5]) * r + _LOG[6]) * r + _LOG[7]) * r + _LOG[8]
    square = r * r
    p = p * r * square + whole * _LN2_LOW
    return ((p - _HALF * square) + r) + whole * _LN2_HIGH if x == x else x


@exact
def _tanh32(x):
    size = abs(x)
    z = _exp32(-(size + size))
    large = (_ONE - z) / (_ONE + z)
    s = x * x
    p = (((_TANH[0] * s + _TANH[1]) * s + _TANH[2]) * s + _TANH[3]) * s + _TANH[4]
    return p * s * x + x if size < _SMALL else (large if x > _ZERO else -large)


@exact
def _largest32(values):
    # As whole numbers, the bits of floats above 0 are in the same order, and those below 0 once all but the sign are
    # turned round; unlike floats, whole numbers are compared many at a time. What is no number counts as the largest.
    top = _LEAST
    for i in range(len(values)):
        bits = np.float32(values[i]).view(np.int32)
        ordered = np.int32(bits ^ ((bits >> np.int32(31)) & _ALL_BUT_SIGN))
        top = ordered if ordered > top else top
    return np.int32(top ^ ((top >> np.int32(31)) & _ALL_BUT_SIGN)).view(np.float32)


@exact
def _largest64(values):
    top = values[0]
    for i in range(1, len(values)):
        if not values[i] <= top:
            top = values[i]
    return top


def _by_dtype(function, single, double):
    """Let `function` mean `single` for float32 and `double` otherwise, inside compiled code."""

    @overload(function, inline="always")
    def choose(x):
        return (lambda x: single(x)) if getattr(x, "dtype", x).bitwidth == 32 else (lambda x: double(x))


_by_dtype(exp, _exp32, math.exp)
_by_dtype(log, _log32, math.log)
_by_dtype(tanh, _tanh32, math.tanh)
_by_dtype(largest, _largest32, _largest64)


@small
def sigmoid_all(values):
    one = values.dtype.type(1)
    zero = values.dtype.type(0)
    for i in range(len(values)):
        z = exp(-abs(values[i]))
        s = one / (one + z)
        values[i] = z * s if values[i] < zero else s


@small
def tanh_all(values):
    for i in range(len(values)):
        values[i] = tanh(values[i])


@small
def softplus_all(values):
    limit = values.dtype.type(20)  # torch's softplus is linear above
    for i in range(len(values)):
        x = values[i]
        values[i] = x if x > limit else values.dtype.type(math.log1p(math.exp(x)))


# --- Products --------------------------------------------------------------------------------------------


@part
def add_product(out, x, matrix):
    """out [I, J] += x [I, K] @ matrix [K, J]."""
    n_in, n_out = matrix.shape
    whole = n_in - n_in % 8
    for k in range(0, whole, 8):
        m0, m1, m2, m3 = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        m4, m5, m6, m7 = matrix[k + 4], matrix[k + 5], matrix[k + 6], matrix[k + 7]
        for i in range(out.shape[0]):
            row = out[i]
            x0, x1, x2, x3 = x[i, k], x[i, k + 1], x[i, k + 2], x[i, k + 3]
            x4, x5, x6, x7 = x[i, k + 4], x[i, k + 5], x[i, k + 6], x[i, k + 7]
            for j in range(n_out):
                row[j] += ((x0 * m0[j] + x1 * m1[j]) + (x2 * m2[j] + x3 * m3[j])) + (
                    (x4 * m4[j] + x5 * m5[j]) + (x6 * m6[j] + x7 * m7[j])
                )
    pairs = n_in - n_in % 2
    for k in range(whole, pairs, 2):
        m0, m1 = matrix[k], matrix[k + 1]
        for i in range(out.shape[0]):
            row, x0, x1 = out[i], x[i, k], x[i, k + 1]
            for j in range(n_out):
                row[j] += x0 * m0[j] + x1 * m1[j]
    for k in range(pairs, n_in):
        m0 = matrix[k]
        for i in range(out.shape[0]):
            row, x0 = out[i], x[i, k]
            for j in range(n_out):
                row[j] += x0 * m0[j]


@small
def add_squares(out, matrix):
    """out [J] += the sum of the squares of each column of `matrix` [K, J]."""
    n_in, n_out = matrix.shape
    whole = n_in - n_in % 4
    for k in range(0, whole, 4):
        m0, m1, m2, m3 = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        for j in range(n_out):
            out[j] += (m0[j] * m0[j] + m1[j] * m1[j]) + (m2[j] * m2[j] + m3[j] * m3[j])
    for k in range(whole, n_in):
        m0 = matrix[k]
        for j in range(n_out):
            out[j] += m0[j] * m0[j]


@small
def copy(to, values):
    """Numba's own assignment of an array to a slice is slow for short ones."""
    for i in range(len(values)):
        to[i] = values[i]


@part
def add_dots(out, a, b):
    """out [I, J] += a [I, N] @ b [J, N] transposed."""
    for i in range(a.shape[0]):
        first = a[i]
        for j in range(b.shape[0]):
            out[i, j] += dot(first, b[j])


@small
def dot(a, b):
    total = a.dtype.type(0)
    for n in range(len(a)):
        total += a[n] * b[n]
    return total


# --- Softmax ---------------------------------------------------------------------------------------------


# In place: the compiler checks when a loop begins whether what it fills overlaps what it reads, and goes one by one
# if so; an array under a single name needs no check.


@small
def softmax(values):
    top, total = largest(values), values.dtype.type(0)
    for i in range(len(values)):
        e = exp(values[i] - top)
        values[i] = e
        total += e
    scale = values.dtype.type(1) / total
    for i in range(len(values)):
        values[i] *= scale


@small
def softmax_backward(grad, values):
    """`grad` turns from the gradient after a softmax, which gave `values`, into that before it."""
    mean = dot(grad, values)
    for i in range(len(grad)):
        grad[i] = values[i] * (grad[i] - mean)


# --- Controllers -----------------------------------------------------------------------------------------


@part
def lstm_forward(gates, cell, new_cell, squashed, hidden):
    """Fill all but `cell` for one layer and one sequence; `gates` [4C] holds sums, `new_cell` may be `cell`."""
    size = len(hidden)
    sigmoid_all(gates[: 3 * size])
    candidate = gates[3 * size :]
    tanh_all(candidate)
    enter, keep, out = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size]
    for i in range(size):
        new = keep[i] * cell[i] + enter[i] * candidate[i]
        new_cell[i] = new
        squash = tanh(new)
        squashed[i] = squash
        hidden[i] = out[i] * squash


@part
def lstm_backward(gates, cell, squashed, grad_hidden, grad_cell, grad_gates):
    """Fill the gradient of the sums; `grad_cell` turns from that of the new cell into that of the old one."""
    size, one = len(cell), cell.dtype.type(1)
    enter, keep, out = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size]
    candidate = gates[3 * size :]
    to_enter, to_keep = grad_gates[:size], grad_gates[size : 2 * size]
    to_out, to_candidate = grad_gates[2 * size : 3 * size], grad_gates[3 * size :]
    for i in range(size):
        grad, squash = grad_hidden[i], squashed[i]
        inner = grad_cell[i] + grad * (out[i] * (one - squash * squash))
        to_enter[i] = inner * (candidate[i] * (enter[i] * (one - enter[i])))
        to_keep[i] = inner * (cell[i] * (keep[i] * (one - keep[i])))
        to_out[i] = grad * (squash * (out[i] * (one - out[i])))
        to_candidate[i] = inner * (enter[i] * (one - candidate[i] * candidate[i]))
        grad_cell[i] = inner * keep[i]


@part
def controller_forward(t, seen, gates, cell, squashed, recurrent, hidden, read_size, is_lstm, kept):
    """One step of all sequences; fills `hidden` [B, C]."""
    n_layers, batch, size = len(gates), hidden.shape[0], hidden.shape[1]
    for layer in range(n_layers):
        sees, sums = seen[layer, t], gates[layer, t]
        width = sees.shape[1]
        if layer > 0:
            for b in range(batch):
                copy(sees[b, read_size : read_size + size], hidden[b])
        add_product(sums, sees, recurrent[layer])
        for b in range(batch):
            if is_lstm:
                own = seen[layer, t + 1, b, width - size :]
                lstm_forward(
                    sums[b], cell[layer, t * kept, b], cell[layer, (t + 1) * kept, b],
                    squashed[layer, t * kept, b], own,
                )  # fmt: skip
                copy(hidden[b], own)
            else:
                tanh_all(sums[b])
                copy(hidden[b], sums[b])


@part
def controller_backward(
    t, gates, cell, squashed, recurrent, grad, grad_hidden, grad_cell, grad_gates, grad_seen, grad_reads, is_lstm
):  # fmt: skip
    """One step back from the gradient of the output, `grad` [B, C]; fills that of the reads seen [B, R * D]."""
    batch, size, read_size, width = grad.shape[0], grad.shape[1], grad_reads.shape[1], grad_seen.shape[1]
    one, zero = grad.dtype.type(1), grad.dtype.type(0)
    grad_reads[:] = zero
    for layer in range(len(gates) - 1, -1, -1):
        for b in range(batch):
            value, to, comes = gates[layer, t, b], grad_gates[layer, t, b], grad[b]
            if is_lstm:
                carried = grad_hidden[layer, b]
                for i in range(size):
                    comes[i] += carried[i]
                lstm_backward(value, cell[layer, t, b], squashed[layer, t, b], comes, grad_cell[layer, b], to)
            else:
                for i in range(size):
                    to[i] = comes[i] * (one - value[i] * value[i])
        grad_seen[:] = zero
        add_product(grad_seen, grad_gates[layer, t], recurrent[layer])
        for b in range(batch):
            for i in range(read_size):
                grad_reads[b, i] += grad_seen[b, i]
            if is_lstm:
                copy(grad_hidden[layer, b], grad_seen[b, width - size :])
            if layer > 0:
                copy(grad[b], grad_seen[b, read_size : read_size + size])


# --- Heads -----------------------------------------------------------------------------------------------


@small
def split_heads(row, n_heads, n_writers, dim):
    """Views of what all heads emit [P], in the order of `attn.ntm_scan.heads.HeadValues`."""
    add = n_heads * dim
    gate = add + n_writers * dim
    erase = gate + n_heads
    strength = erase + n_writers * dim
    excess = strength + n_heads
    shift = excess + n_heads
    return (
        row[:add].reshape(n_heads, dim), row[add:gate].reshape(n_writers, dim), row[gate:erase],
        row[erase:strength].reshape(n_writers, dim), row[strength:excess], row[excess:shift],
        row[shift:].reshape(n_heads, (len(row) - shift) // n_heads),
    )  # fmt: skip


@part
def heads_forward(row, n_heads, n_writers, dim):
    """Apply the non-linearities to sums [P]."""
    gate = (n_heads + n_writers) * dim
    strength = gate + n_heads + n_writers * dim
    shifts = strength + 2 * n_heads
    n_shifts = (len(row) - shifts) // n_heads
    tanh_all(row[:gate])
    sigmoid_all(row[gate:strength])
    softplus_all(row[strength:shifts])
    for start in range(shifts, len(row), n_shifts):
        shift = row[start : start + n_shifts]
        softmax(shift)


@part
def heads_backward(grad, row, n_heads, n_writers, dim):
    """Turn gradients of what the heads emit [P] into those of the sums; those of the shifts are already."""
    one = row.dtype.type(1)
    gate = (n_heads + n_writers) * dim
    strength = gate + n_heads + n_writers * dim
    for i in range(gate):
        grad[i] *= one - row[i] * row[i]
    for i in range(gate, strength):
        grad[i] *= row[i] * (one - row[i])
    for i in range(strength, strength + 2 * n_heads):
        grad[i] *= -row.dtype.type(math.expm1(-row[i]))  # sigmoid(x) = 1 - exp(-softplus(x))


# --- Content (eqs. 5 and 6) ------------------------------------------------------------------------------


@small
def key_scale(key, eps):
    """Inverse norm of a key [D]."""
    return key.dtype.type(1) / math.sqrt(dot(key, key) + eps)


@small
def fill_queries(key, strength, query, eps):
    """Strength * key / norm of the key, for each head."""
    for head in range(len(strength)):
        factor = strength[head] * key_scale(key[head], eps)
        for d in range(key.shape[1]):
            query[head, d] = key[head, d] * factor


@part
def content_forward(query, memory, slot_scale, similarity, content, eps):
    """Fill the last three but one for queries [H, D] and the memory [D, N]."""
    slot_scale[:] = eps
    add_squares(slot_scale, memory)
    one = memory.dtype.type(1)
    for n in range(len(slot_scale)):
        slot_scale[n] = one / math.sqrt(slot_scale[n])
    similarity[:] = memory.dtype.type(0)
    add_product(similarity, query, memory)
    for head in range(len(query)):
        row = similarity[head]
        for n in range(len(slot_scale)):
            row[n] *= slot_scale[n]
        copy(content[head], row)
        softmax(content[head])


@part
def content_backward(
    key, strength, gate, slot_scale, similarity, content, memory, query, grad_gated, grad_memory, grad_query,
    by_norm, grad_key, grad_strength, eps
):  # fmt: skip
    """Fill the gradients of key and strength, and add to that of the memory [D, N].

    `grad_gated` [H, N] is the gradient of the interpolated weightings, and turns into that of the products of query
    and slot; `by_norm` [N] and `grad_query` [H, D] are scratch.
    """
    zero = memory.dtype.type(0)
    by_norm[:] = zero
    for head in range(len(key)):
        grad, alike = grad_gated[head], similarity[head]
        softmax_backward(grad, content[head])
        for n in range(len(grad)):
            scaled = grad[n] * (gate[head] * slot_scale[n])
            grad[n] = scaled
            by_norm[n] -= scaled * (slot_scale[n] * alike[n])
    fill_queries(key, strength, query, eps)
    grad_query[:] = zero
    add_dots(grad_query, grad_gated, memory)
    add_product(grad_memory, query.T, grad_gated)
    for d in range(len(memory)):
        row, to = memory[d], grad_memory[d]
        for n in range(len(row)):
            to[n] += row[n] * by_norm[n]
    for head in range(len(key)):
        scale = key_scale(key[head], eps)
        along = dot(grad_query[head], key[head]) * scale
        grad_strength[head] = along
        for d in range(key.shape[1]):
            grad_key[head, d] = (grad_query[head, d] - key[head, d] * scale * along) * (
                strength[head] * scale
            )


# --- Location (eqs. 7 to 9) ------------------------------------------------------------------------------


@small
def close(ring, n_slots):
    """Fill both ends of a weighting on a circle [N + 2r] with what comes from the other end."""
    reach = (len(ring) - n_slots) // 2
    for i in range(reach):
        ring[i] = ring[n_slots + i]
        ring[n_slots + reach + i] = ring[reach + i]


@small
def fill_gated(content, previous, gate, ring):
    """Interpolated weighting (eq. 7) on a circle."""
    n_slots, stay = len(content), content.dtype.type(1) - gate
    reach = (len(ring) - n_slots) // 2
    centre = ring[reach : reach + n_slots]
    for n in range(n_slots):
        centre[n] = gate * content[n] + stay * previous[n]
    close(ring, n_slots)


@part
def location_forward(content, previous, gate, shift, excess, floor, shifted, logs, new, ring):
    """Fill the last four for one head; `new` may be `previous`."""
    n_slots, n_shifts = len(content), len(shift)
    fill_gated(content, previous, gate, ring)
    shifted[:] = content.dtype.type(0)
    for s in range(n_shifts):
        window, factor = ring[n_shifts - 1 - s : n_shifts - 1 - s + n_slots], shift[s]
        for n in range(n_slots):
            shifted[n] += factor * window[n]
    exponent = content.dtype.type(1) + excess
    for n in range(n_slots):
        logs[n] = log(floor if shifted[n] < floor else shifted[n])
        new[n] = exponent * logs[n]
    softmax(new)


@part
def location_backward(
    content, previous, gate, shift, excess, floor, shifted, logs, new, grad, grad_gated, ring, grad_shift
):  # fmt: skip
    """For one head, fill the gradients of the interpolated weighting and of the shifts' sums; `grad` [N] turns from the
    gradient of the new weighting into that of the previous one.

    Returns:
        The gradients of the gate and of the exponent.
    """
    n_slots, n_shifts = len(content), len(shift)
    zero, one = content.dtype.type(0), content.dtype.type(1)
    fill_gated(content, previous, gate, ring)
    softmax_backward(grad, new)
    by_exponent = dot(grad, logs)
    exponent = one + excess
    for n in range(n_slots):
        grad[n] = grad[n] * (exponent / shifted[n]) if shifted[n] >= floor else zero * grad[n]
    for s in range(n_shifts):
        grad_shift[s] = dot(ring[n_shifts - 1 - s : n_shifts - 1 - s + n_slots], grad)
    softmax_backward(grad_shift, shift)
    reach = n_shifts // 2
    copy(ring[reach : reach + n_slots], grad)
    close(ring, n_slots)
    grad_gated[:] = zero
    for s in range(n_shifts):
        window, factor = ring[s : s + n_slots], shift[s]
        for n in range(n_slots):
            grad_gated[n] += factor * window[n]
    by_gate, stay = zero, one - gate
    for n in range(n_slots):
        by_gate += grad_gated[n] * (content[n] - previous[n])
        grad[n] = grad_gated[n] * stay
    return by_gate, by_exponent


# --- Writing and reading (eqs. 2 to 4) -------------------------------------------------------------------


@part
def write_forward(memory, new, weights, erase, add):
    """Fill the new memory [D, N], which may be the old one, for weightings [W, N] and vectors [W, D]."""
    copy(new.reshape(new.size), memory.reshape(new.size))
    for d in range(len(new)):
        for head in range(len(weights)):
            erase_row(new[d], weights[head], erase[head, d])
    add_product(new, add.T, weights)


@small
def erase_row(row, weight, much):
    for n in range(len(row)):
        row[n] -= row[n] * (much * weight[n])


@part
def write_backward(memory, weights, erase, add, grad_memory, grad_weights, grad_erase, grad_add, left):
    """Fill the gradients of erase and add, add to that of the weightings [W, N]; `grad_memory` [D, N] turns from the
    gradient of the memory after the write into that of the memory before it; `left` [W, N] is scratch, for what each
    head found.
    """
    n_heads = len(weights)
    grad_add[:] = memory.dtype.type(0)
    add_dots(grad_add, weights, grad_memory)
    add_product(grad_weights, add, grad_memory)
    for d in range(len(memory)):
        copy(left[0], memory[d])
        for head in range(n_heads - 1):
            copy(left[head + 1], left[head])
            erase_row(left[head + 1], weights[head], erase[head, d])
        for head in range(n_heads - 1, -1, -1):
            grad_erase[head, d] = erase_row_backward(
                left[head], weights[head], erase[head, d], grad_memory[d], grad_weights[head]
            )


@small
def erase_row_backward(row, weight, much, grad, grad_weight):
    """`grad` [N] turns from the gradient of what is left into that of `row`; returns the gradient of `much`."""
    total = row.dtype.type(0)
    for n in range(len(row)):
        share = grad[n] * row[n]
        total -= share * weight[n]
        grad_weight[n] -= much * share
        grad[n] -= grad[n] * (much * weight[n])
    return total


# --- The loop over time ----------------------------------------------------------------------------------


@entry
def forward(
    seen, gates, cell, squashed, recurrent, head_weight, head_bias, values, weights, memory,
    slot_scale, similarity, content, shifted, logs, n_readers, n_shifts, is_lstm, kept, norm_eps, weight_floor
):  # fmt: skip
    """Run the machine; everything from `seen` to `squashed` and from `values` to `logs` is the tape that is filled.

    Args:
        seen: what the layers see [L, T + 1, B, F], with the starting state in its first place.
        gates: what the inputs add [L, T, B, G].
        recurrent: [L, F, G].
        head_weight: [C, P].
        kept: 1 if every step has a place on the tape, 0 if all share one; `seen` and `gates` keep every step.
    """
    n_steps, batch, n_slots = gates.shape[1], gates.shape[2], memory.shape[3]
    n_heads, dim, size = weights.shape[2], memory.shape[2], head_weight.shape[0]
    n_writers = n_heads - n_readers
    eps, floor = memory.dtype.type(norm_eps), memory.dtype.type(weight_floor)
    numbers = memory.dtype
    hidden, query, ring = (
        np.empty((batch, size), numbers),
        np.empty((n_heads, dim), numbers),
        np.empty(n_slots + n_shifts - 1, numbers),
    )
    read_size = n_readers * dim
    for t in range(n_steps):
        now, then = t * kept, (t + 1) * kept
        controller_forward(t, seen, gates, cell, squashed, recurrent, hidden, read_size, is_lstm, kept)
        for b in range(batch):
            copy(values[now, b], head_bias)
        add_product(values[now], hidden, head_weight)
        for b in range(batch):
            row = values[now, b]
            heads_forward(row, n_heads, n_writers, dim)
            key, add, gate, erase, strength, excess, shift = split_heads(row, n_heads, n_writers, dim)
            fill_queries(key, strength, query, eps)
            content_forward(
                query, memory[now, b], slot_scale[now, b], similarity[now, b], content[now, b], eps
            )
            for head in range(n_heads):
                location_forward(
                    content[now, b, head], weights[now, b, head], gate[head], shift[head], excess[head], floor,
                    shifted[now, b, head], logs[now, b, head], weights[then, b, head], ring,
                )  # fmt: skip
            new = weights[then, b]
            write_forward(memory[now, b], memory[then, b], new[n_readers:], erase, add)
            reads = seen[0, t + 1, b, :read_size]
            reads[:] = memory.dtype.type(0)
            add_dots(reads.reshape(n_readers, dim), new[:n_readers], memory[then, b])
            for layer in range(1, len(seen)):
                copy(seen[layer, t + 1, b, :read_size], reads)


@entry
def backward(
    gates, cell, squashed, recurrent, head_weight, values, weights, memory, slot_scale, similarity, content, shifted,
    logs, grad_outputs, grad_hidden, grad_cell, grad_reads, grad_weights, grad_memory, grad_gates, grad_values,
    n_shifts, is_lstm, norm_eps, weight_floor
):  # fmt: skip
    """Fill `grad_gates` [L, T, B, G] and `grad_values` [T, B, P], the gradients of the layers' and the heads' sums;
    `grad_hidden` ... `grad_memory` turn from gradients of the final state into those of the starting state.

    Args:
        gates ... logs: as `forward` left them, with every step kept.
        recurrent: [L, G, F].
        head_weight: [P, C].
        grad_outputs: [T, B, C + R * D].
    """
    n_steps, batch, n_slots = gates.shape[1], gates.shape[2], memory.shape[3]
    n_heads, dim, size = weights.shape[2], memory.shape[2], head_weight.shape[1]
    n_readers = grad_reads.shape[1] // dim
    n_writers = n_heads - n_readers
    eps, floor = memory.dtype.type(norm_eps), memory.dtype.type(weight_floor)
    query, grad_query = np.empty((n_heads, dim), memory.dtype), np.empty((n_heads, dim), memory.dtype)
    ring, by_norm = np.empty(n_slots + n_shifts - 1, memory.dtype), np.empty(n_slots, memory.dtype)
    left, grad_gated = (
        np.empty((n_writers, n_slots), memory.dtype),
        np.empty((n_heads, n_slots), memory.dtype),
    )
    grad_output = np.empty((batch, size), memory.dtype)
    grad_seen = np.empty((batch, recurrent.shape[2]), memory.dtype)
    for t in range(n_steps - 1, -1, -1):
        for b in range(batch):
            row, grad_row = values[t, b], grad_values[t, b]
            key, add, gate, erase, strength, excess, shift = split_heads(row, n_heads, n_writers, dim)
            grad_key, grad_add, grad_gate, grad_erase, grad_strength, grad_excess, grad_shift = split_heads(
                grad_row, n_heads, n_writers, dim
            )
            old, new, after = memory[t, b], weights[t + 1, b], grad_memory[b]
            by_weights = grad_weights[b]
            by_reads = grad_reads[b]
            for i in range(len(by_reads)):
                by_reads[i] += grad_outputs[t, b, size + i]
            by_reader = by_reads.reshape(n_readers, dim)
            add_product(by_weights[:n_readers], by_reader, memory[t + 1, b])
            add_product(after, by_reader.T, new[:n_readers])
            write_backward(
                old, new[n_readers:], erase, add, after, by_weights[n_readers:], grad_erase, grad_add, left
            )
            for head in range(n_heads):
                grad_gate[head], grad_excess[head] = location_backward(
                    content[t, b, head], weights[t, b, head], gate[head], shift[head], excess[head], floor,
                    shifted[t, b, head], logs[t, b, head], new[head], by_weights[head], grad_gated[head], ring,
                    grad_shift[head],
                )  # fmt: skip
            content_backward(
                key, strength, gate, slot_scale[t, b], similarity[t, b], content[t, b], old, query, grad_gated,
                after, grad_query, by_norm, grad_key, grad_strength, eps,
            )  # fmt: skip
            heads_backward(grad_row, row, n_heads, n_writers, dim)
            copy(grad_output[b], grad_outputs[t, b, :size])
        add_product(grad_output, grad_values[t], head_weight)
        controller_backward(
            t, gates, cell, squashed, recurrent, grad_output, grad_hidden, grad_cell, grad_gates, grad_seen,
            grad_reads, is_lstm,
        )  # fmt: skip
