"""Speed and memory of LSH attention, against the public package `reformer-pytorch`, causal SDPA and the plain version.

One call hashes the queries of one sequence with 4 heads of 64, attends in chunks of 64, and goes back. Public code
attends across buckets and rounds and counts a pair as often as it meets, so ours does the same in the variants to be
compared with it; the others follow the paper's definition. In both ways a bucket holds as many tokens as a chunk on
average.

Each row also says what a call holds at its peak; `python -m benchmarks.lsh memory` prints that alone. The package is no
dependency: where it cannot be imported its variants are left out, with a message. Where it can, nothing is timed before
ours was seen to equal it, by both conventions, values and gradients, in float64, given its buckets.
"""

import sys
from collections.abc import Callable, Mapping
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from attn.lsh import default_buckets, hash_vectors, lsh_attention, random_rotations
from attn.lsh_convention import PAPER, PUBLIC, Convention
from attn.training import set_seed
from benchmarks.reversible import held_bytes, peak_bytes
from benchmarks.timing import Goal, Row, main

N_HEADS, HEAD_DIM, CHUNK_LEN = 4, 64, 64
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
ROUNDS = (2, 4, 8)
# Beyond so many tokens times rounds plain code needs gigabytes: it is left out. Beyond such a length SDPA, whose time
# goes with its square, is far behind: it is timed once for each length, beside the fewest rounds, and FEW times.
MOST_PLAIN, MOST_SDPA, FEW = 2**14, 8192, 2
PER_ROUND = 832  # tokens a round at which ours is to have overtaken SDPA; a length the package takes, too
# With the default heap that may take so many. SDPA's time goes with the square of the length and ours with the length,
# so at fewer tokens ours may take longer by as much.
PER_ROUND_DEFAULT = 1000
OURS, THEIRS, SDPA = "attn.kernels.lsh, as public code", "reformer-pytorch", "causal SDPA"
OURS_PAPER, THEIRS_PAPER, PLAIN = "attn.kernels.lsh", "reformer-pytorch, as the paper", "attn.lsh, plain"

# The package's own requirements bring newer versions that it cannot be imported with.
INSTALL = (
    "pip install --no-deps reformer-pytorch==1.4.4 local-attention==1.9.0 product-key-memory==0.1.11 "
    "axial-positional-embedding==0.3.12 einops==0.8.2"
)


@cache
def package():
    """Their attention, or None with a message where the package cannot be imported."""
    try:
        from reformer_pytorch.reformer_pytorch import LSHAttention
    except ImportError as error:
        print(f"Without the variants of reformer-pytorch ({error}). To have them: {INSTALL}", file=sys.stderr)
        return None
    return LSHAttention


def ours(
    query: Tensor, value: Tensor, *, n_rounds: int, convention: Convention, fused: bool = True
) -> Tensor:
    """Hashing and attention."""
    rotations = random_rotations(
        default_buckets(query.shape[2], 2 * CHUNK_LEN),
        n_rounds=n_rounds, n_heads=N_HEADS, head_dim=HEAD_DIM, device=query.device,
    )  # fmt: skip
    buckets = hash_vectors(query, rotations, fused=fused)
    scale = HEAD_DIM**-0.5
    return lsh_attention(
        query, value, buckets,
        chunk_len=CHUNK_LEN, is_causal=True, scale=scale, convention=convention, fused=fused,
    )  # fmt: skip


def theirs(query: Tensor, value: Tensor, *, n_rounds: int, convention: Convention) -> Tensor:
    """The same by the package."""
    return _theirs(query, value, CHUNK_LEN, n_rounds, convention)[0].view_as(value)


def _theirs(query: Tensor, value: Tensor, chunk_len: int, n_rounds: int, convention: Convention):
    """What the package returns, which takes the heads for a batch: output, nothing, buckets numbered over all rounds."""
    attention = package()(
        bucket_size=chunk_len, n_hashes=n_rounds, causal=True,
        attend_across_buckets=not convention.same_bucket, allow_duplicate_attention=not convention.count_once,
    )  # fmt: skip
    return attention(query.flatten(0, 1), value.flatten(0, 1))


# By convention: rounding, and the 1e-9 that the package adds to a count before it takes the logarithm.
TOLERANCES = {PUBLIC: 1e-10, PAPER: 1e-7}


def check_equal(n_rounds: int, *, length: int = 256, chunk_len: int = 16) -> None:
    """Ours beside the package's attention, given its buckets: outputs, gradients of queries and values, in float64.

    Raises:
        AssertionError: naming what differs, and where.
    """
    draw = torch.Generator().manual_seed(0)
    query, value, gradient = torch.randn(3, 1, N_HEADS, length, HEAD_DIM, dtype=torch.float64, generator=draw)
    leaves = [query.requires_grad_(), value.requires_grad_()]
    for convention, tolerance in TOLERANCES.items():
        output, _, buckets = _theirs(query, value, chunk_len, n_rounds, convention)
        buckets = buckets.view(1, N_HEADS, n_rounds, length) % (length // chunk_len)
        own = lsh_attention(
            query, value, buckets,
            chunk_len=chunk_len, is_causal=True, scale=HEAD_DIM**-0.5, convention=convention, fused=True,
        )  # fmt: skip
        names = ("outputs", "gradients of queries", "gradients of values")
        pairs = [(one, *torch.autograd.grad(one, leaves, gradient)) for one in (own, output.view_as(value))]
        for name, found, expected in zip(names, *pairs, strict=True):
            where = f"{name} of {THEIRS} and ours differ, {n_rounds} rounds, {convention}"
            torch.testing.assert_close(
                found, expected, rtol=0, atol=tolerance, msg=lambda text, where=where: f"{where}: {text}"
            )


def variants(length: int, n_rounds: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Ours first; those that would take too long left out."""
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
    is_short = length * n_rounds <= MOST_PLAIN
    found[OURS] = partial(ours, n_rounds=n_rounds, convention=PUBLIC)
    if package():
        found[THEIRS] = partial(theirs, n_rounds=n_rounds, convention=PUBLIC)
    found[OURS_PAPER] = partial(ours, n_rounds=n_rounds, convention=PAPER)
    if is_short:
        if package():
            found[THEIRS_PAPER] = partial(theirs, n_rounds=n_rounds, convention=PAPER)
        found[PLAIN] = partial(ours, n_rounds=n_rounds, convention=PAPER, fused=False)
    if length <= MOST_SDPA or n_rounds == min(ROUNDS):
        found[SDPA] = lambda query, value: F.scaled_dot_product_attention(query, query, value, is_causal=True)
    return found


def build(device: torch.device, length: int, n_rounds: int) -> Mapping[str, Callable[[], None]]:
    """Each variant's forward and backward pass, for one draw of queries, values and gradient of the output."""
    if package():
        check_equal(n_rounds)
    set_seed(0)
    query, value = (
        torch.randn(1, N_HEADS, length, HEAD_DIM, device=device, requires_grad=True) for _ in range(2)
    )
    gradient = torch.randn_like(value)

    def step(attend: Callable[[Tensor, Tensor], Tensor]) -> None:
        attend(query, value).backward(gradient)
        query.grad = value.grad = None

    return {name: partial(step, attend) for name, attend in variants(length, n_rounds).items()}


def rows() -> list[Row]:
    """Each length with each number of rounds; then where SDPA is to be overtaken."""
    found = [
        Row(
            name=f"{length}, {n_rounds} rounds",
            units=length,
            build=partial(build, length=length, n_rounds=n_rounds),
            goal=Goal(THEIRS, 1.3, default_heap=2.5) if length >= 4096 else None,
            peak=held_bytes,
            memory_goal=Goal(THEIRS, 5) if length >= 4096 else None,
            optional=(THEIRS,),
            few={SDPA: FEW} if length > MOST_SDPA and n_rounds == min(ROUNDS) else {},
        )
        for length in LENGTHS
        for n_rounds in ROUNDS
    ]
    found += [
        Row(
            name=f"{PER_ROUND} a round, {n_rounds} rounds",
            units=PER_ROUND * n_rounds,
            build=partial(build, length=PER_ROUND * n_rounds, n_rounds=n_rounds),
            goal=Goal(SDPA, 1.0, default_heap=PER_ROUND / PER_ROUND_DEFAULT),
        )
        for n_rounds in ROUNDS
    ]
    return found


def print_memory(device: torch.device) -> None:
    """A table of the peaks."""
    print(f"{device}, {N_HEADS} heads of {HEAD_DIM}, chunks of {CHUNK_LEN}: MiB at the peak of a call")
    for length in LENGTHS:
        for n_rounds in ROUNDS:
            steps = build(device, length, n_rounds)
            for name, step in steps.items():
                step()  # libraries allocate for themselves at their first use
                print(
                    f"{length:6} {n_rounds:2} rounds  {name:34} {peak_bytes(step, device) / 2**20:9.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        print_memory(torch.device(sys.argv[2] if len(sys.argv) > 2 else "cpu"))
    else:
        main(rows(), module="benchmarks.lsh", unit="tokens")
