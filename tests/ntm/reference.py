"""The Neural Turing Machine one number at a time: the paper's sums (arXiv:1410.5401, Sec. 3) as plain loops.

Vectors are lists of floats, matrices lists of rows; nothing is batched and nothing comes from `attn.ntm`.
The two constants that `attn.ntm` adds for stability are arguments here, and 0 as in the paper.
"""

from math import exp, log1p, sqrt, tanh


def dot(u, v):
    return sum(a * b for a, b in zip(u, v, strict=True))


def affine(weight, bias, x):
    return [dot(row, x) + b for row, b in zip(weight, bias, strict=True)]


def sigmoid(x):
    return 1 / (1 + exp(-x))


def softplus(x):
    return log1p(exp(x))


def softmax(values):
    largest = max(values)
    powers = [exp(value - largest) for value in values]
    return [power / sum(powers) for power in powers]


# --- Memory and addressing -------------------------------------------------------------------------------


def read(memory, weights):
    """Eq. 2."""
    return [sum(weights[i] * memory[i][j] for i in range(len(memory))) for j in range(len(memory[0]))]


def write(memory, heads):
    """Eqs. 3 and 4; `heads` holds (weights, erase, add) of every write head."""
    result = [list(row) for row in memory]
    for weights, erase, _ in heads:
        for i, row in enumerate(result):
            for j in range(len(row)):
                row[j] *= 1 - weights[i] * erase[j]
    for weights, _, add in heads:
        for i, row in enumerate(result):
            for j in range(len(row)):
                row[j] += weights[i] * add[j]
    return result


def cosine(u, v, norm_eps=0.0):
    """Eq. 6."""
    return dot(u, v) / (sqrt(dot(u, u) + norm_eps) * sqrt(dot(v, v) + norm_eps))


def content_weights(memory, key, strength, norm_eps=0.0):
    """Eq. 5."""
    return softmax([strength * cosine(key, row, norm_eps) for row in memory])


def interpolate(content, previous, gate):
    """Eq. 7."""
    return [gate * c + (1 - gate) * p for c, p in zip(content, previous, strict=True)]


def circular_shift(weights, shift):
    """Eq. 8; `shift` lists the probabilities of the shifts -r ... r."""
    n_slots, reach = len(weights), len(shift) // 2
    probability = {offset % n_slots: 0.0 for offset in range(n_slots)}
    for offset in range(-reach, reach + 1):
        probability[offset % n_slots] += shift[offset + reach]
    return [sum(weights[j] * probability[(i - j) % n_slots] for j in range(n_slots)) for i in range(n_slots)]


def sharpen(weights, exponent, floor=0.0):
    """Eq. 9."""
    powers = [max(weight, floor) ** exponent for weight in weights]
    return [power / sum(powers) for power in powers]


# --- Controllers -----------------------------------------------------------------------------------------


def lstm_layer(gates, seen, hidden, cell):
    """One layer, one step; `gates` maps each gate to (weights of what is seen, recurrent weights, bias)."""

    def gate(name, squash):
        seen_weight, hidden_weight, bias = gates[name]
        return [
            squash(dot(a, seen) + dot(b, hidden) + c)
            for a, b, c in zip(seen_weight, hidden_weight, bias, strict=True)
        ]

    enter, keep, out = gate("input", sigmoid), gate("forget", sigmoid), gate("output", sigmoid)
    candidate = gate("candidate", tanh)
    cell = [f * c + i * g for f, c, i, g in zip(keep, cell, enter, candidate, strict=True)]
    return [o * tanh(c) for o, c in zip(out, cell, strict=True)], cell


def controller_step(weights, x, reads, state):
    """Output of the controller and its new state, a list of [hidden, cell] for every LSTM layer."""
    if weights["kind"] == "feedforward":
        return [tanh(value) for value in affine(*weights["layer"], x + reads)], state
    new_state, below = [], []
    for gates, (hidden, cell) in zip(weights["layers"], state, strict=True):
        below, cell = lstm_layer(gates, x + reads + below, hidden, cell)
        new_state.append([below, cell])
    return below, new_state


def from_named(named):
    """Weights for `run`, from lists by the names that `tests.ntm.per_step.named_weights` gives."""

    def layer(name):
        return named[f"{name}.weight"], named[f"{name}.bias"]

    weights = {"output": layer("output"), "read_heads": [], "write_heads": []}
    for name in named:
        if name.endswith(".key.weight"):
            kind, index, _, _ = name.split(".")
            parts = ("key", "strength", "gate", "shift", "exponent", "erase", "add")
            prefix = f"{kind}.{index}"
            head = {part: layer(f"{prefix}.{part}") for part in parts if f"{prefix}.{part}.weight" in named}
            weights[kind].append(head)
    if "hidden.weight" in named:
        weights["controller"] = {"kind": "feedforward", "layer": layer("hidden")}
    else:
        cells = [f"cells.{i}" for i in range(sum(name.startswith("start.") for name in named))]
        layers = [
            gates_of(named[f"{cell}.weight_ih"], named[f"{cell}.weight_hh"], named[f"{cell}.bias_ih"])
            for cell in cells
        ]
        weights["controller"] = {"kind": "lstm", "layers": layers}
    return weights


def gates_of(seen_weight, hidden_weight, bias):
    """The rows of torch's LSTM weights by gate."""
    size = len(bias) // 4
    rows = {}
    for i, gate in enumerate(("input", "forget", "candidate", "output")):
        own = slice(i * size, (i + 1) * size)
        rows[gate] = (seen_weight[own], hidden_weight[own], bias[own])
    return rows


# --- The whole machine -----------------------------------------------------------------------------------


def head_outputs(head, hidden):
    """What one head emits, by name, in the range each quantity must have."""
    raw = {name: affine(*parameters, hidden) for name, parameters in head.items()}
    emitted = {
        "key": [tanh(value) for value in raw["key"]],
        "strength": softplus(raw["strength"][0]),
        "gate": sigmoid(raw["gate"][0]),
        "shift": softmax(raw["shift"]),
        "exponent": 1 + softplus(raw["exponent"][0]),
    }
    if "erase" in head:
        emitted["erase"] = [sigmoid(value) for value in raw["erase"]]
        emitted["add"] = [tanh(value) for value in raw["add"]]
    return emitted


def address(memory, previous, emitted, norm_eps=0.0, floor=0.0):
    """Content, interpolation, shift, sharpening (fig. 2)."""
    content = content_weights(memory, emitted["key"], emitted["strength"], norm_eps)
    gated = interpolate(content, previous, emitted["gate"])
    return sharpen(circular_shift(gated, emitted["shift"]), emitted["exponent"], floor)


def run(weights, inputs, state, norm_eps=0.0, floor=0.0):
    """One sequence.

    Args:
        weights: as `from_named` gives them.
        inputs: one vector a time step.
        state: {"controller", "reads", "weights", "memory"} before the first step; `weights` lists the
            weightings of the read heads, then of the write heads.

    Returns:
        Logits of every step, and the state after every step.
    """
    heads = weights["read_heads"] + weights["write_heads"]
    logits, states = [], []
    for x in inputs:
        hidden, controller = controller_step(weights["controller"], x, state["reads"], state["controller"])
        emitted = [head_outputs(head, hidden) for head in heads]
        weightings = [
            address(state["memory"], previous, outputs, norm_eps, floor)
            for previous, outputs in zip(state["weights"], emitted, strict=True)
        ]
        n_read = len(weights["read_heads"])
        writes = [
            (w, e["erase"], e["add"]) for w, e in zip(weightings[n_read:], emitted[n_read:], strict=True)
        ]
        memory = write(state["memory"], writes)
        reads = [value for weighting in weightings[:n_read] for value in read(memory, weighting)]
        logits.append(affine(*weights["output"], hidden + reads))
        state = {"controller": controller, "reads": reads, "weights": weightings, "memory": memory}
        states.append(state)
    return logits, states


def lstm_with_skips(weights, inputs, state):
    """The baseline of table 3: every layer sees the input, layers above the first the layer below as well,
    and every layer feeds the output.

    Args:
        weights: {"layers", "output"}.
        inputs: one vector a time step.
        state: a list of [hidden, cell] for every layer.

    Returns:
        Logits of every step, and the final state.
    """
    logits = []
    for x in inputs:
        new_state, below, every_layer = [], [], []
        for gates, (hidden, cell) in zip(weights["layers"], state, strict=True):
            below, cell = lstm_layer(gates, x + below, hidden, cell)
            new_state.append([below, cell])
            every_layer = every_layer + below
        state = new_state
        logits.append(affine(*weights["output"], every_layer))
    return logits, state
