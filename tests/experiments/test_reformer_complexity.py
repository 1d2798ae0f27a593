"""Tables 1 and 3 counted: largest tensors, what waits for the gradient, exponents, and which formulas stand."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from attn.attention import scaled_dot_product_attention
from attn.experiments.reformer import CHAPTER, complexity, tables
from attn.experiments.reformer.runs import PAPER
from attn.lsh import lsh_attention
from attn.reproduction.facts import load_papers

FACTS = load_papers()[PAPER]
ROWS = [
    (table, row[label], column, row[column])
    for table, label in (("table1", "attention_type"), ("table3", "model_type"))
    for row in FACTS.table(table).rows
    for column in ("memory", "time")
]


def test_the_largest_tensor_is_that_of_any_operation():
    values = torch.randn(3, 2)
    assert complexity.largest_tensor(lambda: (values @ values.T).sum()) == 9 * 4
    # a view counts as what it is a view of
    assert complexity.largest_tensor(lambda: values.expand(1000, 3, 2)[0].sum()) == 6 * 4


def test_what_waits_for_the_gradient_is_counted_once_and_without_parameters():
    linear = nn.Linear(8, 8, bias=False)
    inputs = torch.randn(4, 8)
    assert complexity.peak_saved(linear, inputs) == 4 * 8 * 4  # its inputs, for the weight's gradient

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, inputs):
            return self.linear(inputs) + self.linear(inputs)

    assert complexity.peak_saved(Twice(), inputs) == 4 * 8 * 4

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(5)))

        def forward(self, inputs):
            return self.layers(inputs)

    assert complexity.peak_saved(Deep(), inputs) == 5 * 4 * 8 * 4


class Remembers(torch.autograd.Function):
    """Keeps tensors where autograd's hooks do not see them: one of its own, its inputs' memory, and a parameter."""

    @staticmethod
    def forward(ctx, inputs, weight):
        ctx.kept = {"buckets": [torch.zeros(5, dtype=torch.int64), inputs.view(-1)], "weight": weight}
        ctx.save_for_backward(inputs)
        return inputs * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2, None


def test_what_functions_keep_as_attributes_is_counted_if_asked():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8, bias=False)

        def forward(self, inputs):
            return Remembers.apply(
                Remembers.apply(self.linear(inputs), self.linear.weight), self.linear.weight
            )

    inputs = torch.randn(4, 8)
    seen = 3 * 4 * 8 * 4  # inputs of the product and of both functions
    assert complexity.peak_saved(Model(), inputs) == seen
    assert complexity.peak_saved(Model(), inputs, count_attributes=True) == seen + 2 * 5 * 8


def test_flops_are_those_of_the_products():
    assert complexity.flops(lambda: torch.randn(3, 4) @ torch.randn(4, 5)) == 2 * 3 * 4 * 5


def test_one_query_at_a_time_is_attention():
    query, key, value = torch.randn(3, 2, 2, 7, 4).double()
    expected = scaled_dot_product_attention(query, key, value)[0]
    torch.testing.assert_close(complexity.one_query_at_a_time(query, key, value), expected)


def test_exponents_are_read_off_growth():
    found = complexity.exponents(
        lambda s: 7 * s["a"] ** 2 * s["b"] ** 0.5 / s["c"], {"a": 3, "b": 2, "c": 5, "d": 1}
    )
    assert found == {"a": 2, "b": Fraction(1, 2), "c": -1, "d": 0}
    with pytest.raises(ArithmeticError, match="a has the power 1.50"):
        complexity.exponents(lambda s: s["a"] ** 1.5, {"a": 4})


def test_a_printed_formula_gets_its_exponents_in_both_regimes():
    law = complexity.printed_law("table3", "Transformer", "memory", "max(b*l*dff, b*nh*l^2)*nl")
    assert {name: power for name, power in law.wide.items() if power} == {"b": 1, "l": 1, "dff": 1, "nl": 1}
    assert {name: power for name, power in law.long.items() if power} == {"b": 1, "nh": 1, "l": 2, "nl": 1}
    assert complexity.law_text("memory", law) == "max(b*l*dff, b*nh*l^2)*nl"
    with pytest.raises(ValueError, match="formula must be made of sizes"):
        complexity.printed_law("table3", "Transformer", "memory", "__import__('os')")


@pytest.mark.parametrize(("table", "kind", "column", "formula"), ROWS, ids=lambda part: str(part)[:24])
def test_formulas_stand_but_for_the_misprints(table, kind, column, formula):
    misprints = {
        ("Scaled Dot-Product", "time"): "b*nh*l^2*dk",
        ("Memory-Efficient", "memory"): "b*nh*l*dk",
        ("Memory-Efficient", "time"): "b*nh*l^2*dk",
        ("LSH Attention", "memory"): "max(b*nh*l*dk*nr, b*nh*l^2*nr/nc)",
        ("LSH Attention", "time"): "b*nh*l^2*dk*nr/nc",
        ("Reversible Transformer", "time"): "(b*l*dff + b*nh*l^2)*nl",
        ("Chunked Reversible Transformer", "time"): "(b*l*dff + b*nh*l^2)*nl",
        ("LSH Transformer", "memory"): "max(b*l*dff, b*nh*l*nr*c^(1/2))*nl",
        ("LSH Transformer", "time"): "(b*l*dff + b*nh*l*nr*c^(1/2))*nl",
        ("Reformer", "memory"): "max(b*l*dmodel, b*nh*l*nr*c^(1/2))",
        ("Reformer", "time"): "(b*l*dff + b*nh*l*nr*c^(1/2))*nl",
    }
    assert complexity.cell(table, kind, column, formula) == misprints.get((kind, column), formula)


def test_a_time_of_table_1_must_have_every_power_in_both_regimes():
    """dk is one of them: l^2 stands where attention is largest, and not where vectors are."""
    counted = complexity.counted_law("table1", "Scaled Dot-Product", "time")
    assert [(law["l"], law["dk"]) for law in counted] == [(2, 1), (2, 1)]

    def differing(formula):
        printed = complexity.printed_law("table1", "Scaled Dot-Product", "time", formula)
        return complexity.differing(counted, printed)

    assert differing("b*nh*l^2*dk") == differing("b*nh*l*l*dk + b*nh*l*dk") == set()
    assert differing("b*nh*l^2") == {"dk"} and differing("max(b*nh*l*dk, b*nh*l^2*dk)") == set()
    assert differing("max(b*nh*l*dk, b*nh*l^2)") == {"l", "dk"}


def test_what_is_left_out_of_the_times_of_table_3_is_said(monkeypatch):
    said = " ".join(complexity.rule_words())
    for regime in complexity.Law._fields:
        assert regime in said
    assert "a factor dmodel besides" in said and "Hashing itself is left out" in said
    left = complexity.counted_law("table3", "Transformer", "time")
    assert all("dmodel" not in law for law in left)
    monkeypatch.setattr(complexity, "LEFT_OUT", {})
    complexity.counted_law.cache_clear()
    whole = complexity.counted_law("table3", "Transformer", "time")
    complexity.counted_law.cache_clear()
    assert (whole.wide["dmodel"], whole.long["dmodel"]) == (1, 0)
    assert [{**law, "dmodel": 0} for law in whole] == [{**law, "dmodel": 0} for law in left]


def test_what_is_wrong_follows_from_the_powers_that_differ():
    assert tables._why("table1", "Memory-Efficient", "memory", "b*nh*l*dk") is None
    # an extra head in the wide term only, then a square of the window only
    heads, window = "(b*nh*l*dff + b*nh*l^2)*nl", "(b*l*dff + b*nh*l*nr*c)*nl"
    assert "number of heads" in tables._why("table3", "Transformer", "time", heads)
    assert "square of the window" in tables._why("table3", "LSH Transformer", "time", window)
    # both at once, and a power that nothing is known of
    both = tables._why("table3", "LSH Transformer", "time", "(b*nh*l*dff + b*nh*l*nr*c)*nl")
    assert "number of heads" in both and "square of the window" in both
    batch = tables._why("table3", "Transformer", "time", "(b*b*l*dff + b*b*nh*l^2)*nl")
    assert batch == "the power of b differs"


def test_every_size_that_differs_in_a_formula_of_table_1_is_explained():
    row = FACTS.table("table1").rows[2]
    memory, time = (
        tables._why("table1", row["attention_type"], column, row[column]) for column in ("memory", "time")
    )
    window = "each token sees a window of 4l/nc: the printed square counts it twice"
    assert time.startswith(f"{window}; counted is one term in both regimes, b*nh*l^2*dk*nr/nc: ")
    assert memory.startswith(
        f"{window}; counted on the definition, which sorts the vectors of all rounds at once"
    )
    full = tables._why("table1", "Scaled Dot-Product", "time", FACTS.table("table1").rows[0]["time"])
    assert full.startswith("counted is one term in both regimes, b*nh*l^2*dk: ")


def test_the_fused_version_needs_no_memory_for_each_round():
    """As the note on table 1 says; where vectors are the largest."""
    query, value = torch.randn(2, 1, 1, 64, 1024)

    def largest(fused, n_rounds):
        buckets = torch.arange(n_rounds * 64).view(1, 1, n_rounds, 64) * 7 % 8
        return complexity.largest_tensor(
            lambda: lsh_attention(query, value, buckets, chunk_len=32, fused=fused)
        )

    assert largest(False, 4) == 4 * largest(False, 1)
    assert largest(True, 4) == largest(True, 1)


def test_a_formula_that_does_not_stand_says_why():
    views = {view.id: view for view in CHAPTER.tables}
    for table, label in (("table1", "attention_type"), ("table3", "model_type")):
        for row in FACTS.table(table).rows:
            for column, cell in views[table].cells.items():
                stands = cell.compute(row) == row[column]
                assert (cell.note(row) is None) == stands, row[label]
                assert stands or "the power of" not in cell.note(row), f"{row[label]}: a cause is missing"
    reversible = FACTS.table("table3").rows[1]
    assert "number of heads" in views["table3"].cells["time"].note(reversible)
