"""What makes a record stale and what does not: the toy's source is edited after it has run."""

import ast
import json
import re

import pytest
import torch

from attn.reproduction import runner, sources
from attn.reproduction.experiment import config_dict
from attn.reproduction.records import load_records
from attn.reproduction.sources import EVALUATION_METHODS, source_hashes, tree_hash
from attn.reproduction.staleness import freshness, revalidate

CHAPTER, MODEL, TOOLS, SCORE = (
    "attn.experiments.toy",
    "attn.toy_model",
    "attn.toy_tools",
    "attn.evaluation.toy_score",
)


@pytest.fixture
def recorded(toy):
    """The toy with a record of seed 0."""
    toy.run()
    return toy


def record_of(toy):
    (record,) = load_records(toy.results)[0]
    return record


def revalidated(toy):
    return revalidate(record_of(toy), toy.experiment(), runner.replay)


def test_a_record_just_made_is_fresh(recorded):
    assert recorded.freshness().state == "fresh"
    assert not recorded.freshness().stale


# --- what does not matter ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (CHAPTER, '"""The toy\'s workload."""', '"""Another sentence."""'),
        (CHAPTER, '    """What is fitted."""\n', ""),
        (MODEL, "    # one output\n", "\n\n"),
        (
            MODEL,
            "nn.Linear(width, weight())",
            "nn.Linear(\n        width,  # inputs\n        weight()\n    )",
        ),
        (TOOLS, '"""Tools of the toy."""', ""),
        (TOOLS, "\n    return WIDTH", "\n        return WIDTH"),
        (SCORE, "def squared_error", "# new\ndef squared_error"),
    ],
)
def test_comments_docstrings_and_layout_do_not_matter(recorded, module, old, new):
    if new == "\n        return WIDTH":  # a wider indent, of the docstring too
        recorded.edit(module, '    """A line."""', '        """A line."""')
    recorded.edit(module, old, new)
    assert recorded.freshness().state == "fresh"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return COLOUR", "return COLOUR.upper()"),
        ('COLOUR = "blue"', 'COLOUR = "red"'),
        ('- runs["fit/line"].metric("error")\n', '- 2 * runs["fit/line"].metric("error")\n'),
        ('statement="The line learns"', 'statement="The line learns something"'),
        ('label_columns=("model",)', 'label_columns=()'),
        ('"cpu": 3}', '"cpu": 4}'),
    ],
)  # fmt: skip
def test_figures_claims_and_tables_of_the_same_module_do_not_matter(recorded, old, new):
    recorded.edit(CHAPTER, old, new)
    assert recorded.freshness().state == "fresh"


# --- what matters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "old", "new", "named"),
    [
        (CHAPTER, "SLOPE = 2.0", "SLOPE = 3.0", f"{CHAPTER}:build"),
        (CHAPTER, "LOW, HIGH = -1.0, 1.0", "LOW, HIGH = -1.0, 2.0", f"{CHAPTER}:build"),
        (CHAPTER, "points.sum(-1)", "points.mean(-1)", f"{CHAPTER}:build"),
        (CHAPTER, "@dataclass(frozen=True, kw_only=True)", "@dataclass(kw_only=True)", f"{CHAPTER}:build"),
        (MODEL, "nn.Linear(width, weight())", "nn.Linear(width, weight(), bias=False)", MODEL),
        (TOOLS, "WIDTH = 1", "WIDTH = 2", TOOLS),
    ],
)
def test_code_of_the_run_matters(recorded, module, old, new, named):
    recorded.edit(module, old, new)
    found = recorded.freshness()
    assert found.stale and found.replayable
    assert found.why == f"changed since: {named}"


def test_a_module_that_is_used_now_matters(recorded):
    recorded.file("attn.toy_extra").write_text("HALF = 0.5\n")
    recorded.edit(TOOLS, "WIDTH = 1", "from attn.toy_extra import HALF\n\nWIDTH = int(2 * HALF)")
    assert recorded.freshness().why == "changed since: attn.toy_extra, attn.toy_tools"


@pytest.mark.parametrize(
    "use",
    [
        "import attn.toy_extra\nimport attn.toy_other",
        "from . import toy_extra",
        "from .toy_extra import HALF",
        "from attn.toy_extra import *",
        "def late():\n    from attn.toy_extra import HALF\n    return HALF",
    ],
)
def test_every_way_to_import_is_followed(toy, use):
    toy.file("attn.toy_extra").write_text("HALF = 0.5\n")
    toy.file("attn.toy_other").write_text("")
    toy.edit(TOOLS, "WIDTH = 1", f"{use}\nWIDTH = 1")
    assert "attn.toy_extra" in source_hashes(toy.experiment().build)


def test_what_a_chapter_takes_from_another_module_of_the_chapters_matters(recorded):
    recorded.file("attn.experiments.toy_shared").write_text("def slope():\n    return 2.0\n")
    recorded.edit(CHAPTER, "SLOPE = 2.0", "from attn.experiments.toy_shared import slope\n\nSLOPE = slope()")
    recorded.run(force=True)
    assert recorded.freshness().state == "fresh"
    recorded.edit("attn.experiments.toy_shared", "2.0", "2.5")
    assert recorded.freshness().stale


@pytest.mark.parametrize(
    ("use", "name"),
    [
        ("from attn.toy_extra import *", "HALF"),
        ("from attn.toy_extra import HALF as H", "H"),
        ("import attn.toy_extra", "attn.toy_extra.HALF"),
        ("from attn import toy_extra", "toy_extra.HALF"),
    ],
)
def test_what_a_chapter_takes_from_the_library_matters(toy, use, name):
    toy.file("attn.toy_extra").write_text("HALF = 0.5\n")
    toy.edit(CHAPTER, "SLOPE = 2.0", f"{use}\n\nSLOPE = 4 * {name}")
    toy.run()
    toy.edit("attn.toy_extra", "0.5", "0.25")
    assert toy.freshness().why == "changed since: attn.toy_extra"


def test_another_value_in_the_config_cannot_be_replayed(recorded):
    recorded.edit(CHAPTER, "lr=0.05", "lr=0.06")
    found = recorded.freshness()
    assert found.stale and not found.replayable
    assert found.why == "its config differs today in training.lr"


def test_a_field_gone_from_the_config_is_a_change(recorded):
    recorded.edit(CHAPTER, "    width: int = 3\n", "")
    found = recorded.freshness()
    assert found.stale and not found.replayable
    assert "its config differs today in width" in found.why


def test_a_field_added_to_the_config_can_be_revalidated(recorded):
    recorded.edit(CHAPTER, "    width: int = 3\n", "    width: int = 3\n    depth: int = 1\n")
    assert recorded.freshness().replayable
    assert revalidated(recorded).state == "revalidated"
    recorded.edit(CHAPTER, "depth: int = 1", "depth: int = 2")
    assert recorded.freshness().stale


def test_a_field_that_the_record_lacks_is_judged_by_a_replay_even_if_no_code_differs(toy):
    config = config_dict(toy.experiment().configs["cpu"])
    del config["training"]["eps"]
    toy.made_up(config=config)
    found = toy.freshness()
    assert found.stale and found.replayable
    assert found.why == "changed since: fields added to the config"


def test_experiment_or_profile_that_is_gone(recorded):
    record = record_of(recorded)
    assert freshness(record, None).why == "the book no longer has this experiment at this profile"
    recorded.edit(CHAPTER, '"cpu": config(**changes)', '"gpu": config(**changes)')
    assert freshness(record, recorded.experiment()).stale


# --- revalidation ------------------------------------------------------------------------------------------


def test_an_equal_replay_revalidates_until_the_next_change(recorded):
    recorded.edit(MODEL, "nn.Linear(width, weight())", "nn.Linear(width, weight() + 0)")
    assert recorded.freshness().stale
    found = revalidated(recorded)
    assert (found.state, found.why) == ("revalidated", f"changed since: {MODEL}")
    assert recorded.freshness().state == "revalidated"
    assert load_records(recorded.results)[1] == [], "the note beside the record is no record"
    recorded.edit(MODEL, "weight() + 0", "weight() + 0 + 0")
    assert recorded.freshness().stale
    recorded.edit(MODEL, "weight() + 0 + 0", "weight()")
    assert recorded.freshness().state == "fresh"


def test_a_replay_that_differs_leaves_it_stale(recorded):
    recorded.edit(CHAPTER, "SLOPE = 2.0", "SLOPE = 2.001")
    found = revalidated(recorded)
    assert found.stale and "a replay gives losses" in found.why
    assert recorded.freshness().stale
    assert not list(recorded.results.rglob("*.valid.json"))


def test_replay_tolerance_is_for_last_digits_only(recorded):
    recorded.edit(MODEL, "weight())", "weight() + 0)")
    losses = record_of(recorded).data["replay"]["losses"]

    def replayed(factor):
        replay = lambda *arguments, processes: [loss * factor for loss in losses]  # noqa: E731
        return revalidate(record_of(recorded), recorded.experiment(), replay)

    assert replayed(1 + 1e-4).stale
    short = lambda *arguments, processes: losses[:-1]  # noqa: E731
    assert revalidate(record_of(recorded), recorded.experiment(), short).stale
    assert replayed(float("nan")).stale
    assert replayed(1 + 1e-6).state == "revalidated"


def test_a_note_of_revalidation_belongs_to_one_record(recorded):
    recorded.edit(MODEL, "weight())", "weight() + 0)")
    assert revalidated(recorded).state == "revalidated"
    record = record_of(recorded)
    note = record.path.with_suffix(".valid.json")
    before = note.read_text()
    more = record.data["environment"]["threads"] + 1  # how many there are, the machine decides
    record.path.write_text(re.sub(r'"threads": \d+', f'"threads": {more}', record.path.read_text()))
    assert recorded.freshness().stale
    note.write_text(before[: len(before) // 2])
    assert recorded.freshness().stale
    note.write_text("[]")
    assert recorded.freshness().stale


@pytest.mark.parametrize(
    ("module", "old", "new", "named"),
    [
        (SCORE, "errors.square().mean()", "errors.abs().mean()", SCORE),
        (CHAPTER, 'Metric(history[-1]["error"]', 'Metric(2 * history[-1]["error"]', CHAPTER),
        (CHAPTER, "model.weight.detach().numpy()", "2 * model.weight.detach().numpy()", CHAPTER),
        (CHAPTER, "torch.linspace(LOW, HIGH, 5)", "torch.linspace(LOW, HIGH, 7)", CHAPTER),
    ],
)
def test_a_replay_cannot_speak_for_evaluation(recorded, module, old, new, named):
    recorded.edit(module, old, new)
    found = revalidated(recorded)
    assert found.stale and not found.replayable
    changed = f"{named} (evaluation)" if named == SCORE else f"{named}:build (evaluation)"
    assert found.why == f"changed since: {changed} (a replay of losses cannot speak for {changed})"


def test_a_module_that_only_evaluation_uses_belongs_to_it(toy):
    """Wherever it lies, for instance a search for translations; what training uses as well does not."""
    toy.file("attn.toy_search").write_text(
        "from attn.toy_steps import HALF\n\n\ndef best(error):\n    return HALF * error\n"
    )
    toy.file("attn.toy_steps").write_text("HALF = 0.5\n")
    toy.edit(CHAPTER, "from attn.toy_model", "from attn.toy_search import best\nfrom attn.toy_model")
    toy.edit(CHAPTER, 'Metric(history[-1]["error"]', 'Metric(best(history[-1]["error"])')
    names = set(source_hashes(toy.experiment().build))
    assert {"attn.toy_search (evaluation)", "attn.toy_steps (evaluation)"} <= names
    toy.edit(TOOLS, "WIDTH = 1", "from attn.toy_steps import HALF\n\nWIDTH = int(2 * HALF)")
    names = set(source_hashes(toy.experiment().build))
    assert {"attn.toy_search (evaluation)", "attn.toy_steps"} <= names
    assert "attn.toy_steps (evaluation)" not in names


METHODS = """
class Base:
    def outcome(self):
        return self.metrics() + self.shared()

    def metrics(self):
        return self.words()

    def words(self):
        return ""

    def shared(self):
        return ""

    def loss(self):
        return self.shared()


class Derived(Base):
    def metrics(self):
        return super().metrics() + self.extra

    @property
    def extra(self):
        return ""
"""


def test_methods_that_evaluation_alone_uses_belong_to_it():
    """An overriding method counts with the one it overrides; what training uses as well does not count."""
    names = sources._evaluation_names([ast.parse(METHODS)])
    assert names - set(EVALUATION_METHODS) == {"metrics", "words", "extra"}


def test_a_run_of_several_processes_is_replayed_in_their_pieces(recorded):
    record = record_of(recorded)
    data = json.loads(record.path.read_text())
    data["environment"]["device_count"] = 3
    record.path.write_text(json.dumps(data))
    recorded.edit(MODEL, "nn.Linear(width, weight())", "nn.Linear(width, weight() + 0)")
    counts = []

    def replay(*arguments, processes):
        counts.append(processes)
        return data["replay"]["losses"]

    assert revalidate(record_of(recorded), recorded.experiment(), replay).state == "revalidated"
    assert counts == [3]


def test_a_fresh_record_is_not_replayed(recorded):
    def replay(*arguments, processes):
        raise AssertionError("replayed")

    assert revalidate(record_of(recorded), recorded.experiment(), replay).state == "fresh"


def test_a_record_without_losses_cannot_be_revalidated(toy):
    toy.made_up(replay={"losses": []})
    toy.edit(MODEL, "weight())", "weight() + 0)")
    assert revalidated(toy).stale


def test_a_gpu_kernel_cannot_be_revalidated(toy):
    experiment = toy.experiment()
    environment = toy.made_up().data["environment"]
    sources = source_hashes(experiment.build) | {"attn.kernels.fast": "0" * 64}
    code = {"commit": None, "clean": None, "sources": sources}
    on_gpu = toy.made_up(code=code, environment=environment | {"cuda": "12.8", "device": "a GPU"})
    assert not freshness(on_gpu, experiment).replayable
    on_cpu = toy.made_up(code=code, environment=environment | {"cuda": "12.8"})
    assert freshness(on_cpu, experiment).replayable


# --- hashes ------------------------------------------------------------------------------------------------


def test_hashes_name_what_a_run_depends_on(toy):
    names = set(source_hashes(toy.experiment().build))
    own = {name for name in names if name.startswith(CHAPTER)}
    assert f"{CHAPTER}:build" in own
    assert {
        MODEL,
        TOOLS,
        f"{SCORE} (evaluation)",
        "attn.training.loop",
        "attn.training.config",
        "attn.training.seeding",
    } <= names
    forbidden = ("attn.reproduction", "attn.cli", "attn.book", "attn.experiments")
    assert not [name for name in names - own if name.startswith(forbidden)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1  # one\n", "\n\nx  =  1\n"),
        ('def f():\n    """Text."""\n    return 1\n', "def f():\n  return 1\n"),
        ('class C:\n    """Text."""\n    x = 1\n', "class C:\n    x = 1\n"),
        ("f(a,\n  b)\n", "f(a, b)\n"),
        ("f(a, b)\n", "f(\n    a,\n    b,\n)\n"),
        ("x = 'a'\n", 'x = "a"\n'),
        ("x = (1 + 2)\n", "x = 1 + 2\n"),
    ],
)
def test_equal_code_has_equal_hashes(one, other):
    assert tree_hash(one) == tree_hash(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1\n", "x = 2\n"),
        ("x = 1\n", "x = 1.0\n"),
        ("x = 1\n", "x = True\n"),
        ("x = 1\n", "y = 1\n"),
        ("x = 'a'\n", "x = b'a'\n"),
        ("if a:\n    b()\n    c()\n", "if a:\n    b()\nc()\n"),
        ("def f():\n    return\n    x\n", "def f():\n    return x\n"),
        ("f = g\n(x)\n", "f = g(x)\n"),
        ("def f():\n    x = 'text'\n", "def f():\n    x = 'other'\n"),
        ("x = f'{a}'\n", "x = f'{b}'\n"),
        ("x = f'{a:.1f}'\n", "x = f'{a:.2f}'\n"),
        ("x = [None, 1]\n", "x = [1]\n"),
        ("x[1:]\n", "x[:1]\n"),
        ("@a\ndef f(): pass\n", "@b\ndef f(): pass\n"),
        ("def f(*, a): pass\n", "def f(a): pass\n"),
    ],
)
def test_other_code_has_another_hash(one, other):
    assert tree_hash(one) != tree_hash(other)


EVERY_KIND_OF_CODE = '''
"""Text."""
from __future__ import annotations
import attn.ntm as ntm

@decorated(1, key="v")
class A(B, metaclass=C):
    """Text."""
    x: int | None = None
    def f(self, a, /, b=2, *c, d: float = 1e-3, **e) -> str:
        return f"{a!r}: {b:.3f}{{}} {d=}" "more" + b"bytes".decode() + u"text"
    async def g(self):
        async with self.y as z, w:
            return [await i async for i in z if i]
def h(*, n=1_000):
    global X
    X, *Y = (lambda q: -q)(n), {**m}, {1, 2}, {"k": None}
    try:
        assert X[1:, ::2] is not ..., "so"
    except (E, F) as error:
        raise G from error
    else:
        del Y[0]
    finally:
        X @= 3j
    match n:
        case {"a": [1, *rest], **more} | A(x=1) if rest:
            yield from (a for a in rest)
        case _:
            while (p := n) < 3 and not p or True:
                continue
'''


def test_hashes_are_the_same_on_every_python():
    """The value is that of Python 3.11, 3.12 and 3.13; another one makes every record of another Python stale."""
    assert tree_hash(EVERY_KIND_OF_CODE) == "4c2ac47710f27767768331b5c3b2a991eea7856326000b27b565006f2e2c7811"


def test_replay_gives_the_recorded_losses(recorded):
    losses = record_of(recorded).data["replay"]["losses"]
    assert len(losses) == runner.REPLAY_STEPS
    assert runner.replay(recorded.experiment(), "cpu", 0, len(losses)) == losses
    assert runner.replay(recorded.experiment(), "cpu", 1, len(losses)) != losses
    assert torch.is_grad_enabled()
