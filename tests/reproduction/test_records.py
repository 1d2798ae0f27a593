"""Records as files: written whole, read with suspicion, packed, merged and exported."""

import csv
import io
import json
import math
import re
import tarfile

import numpy as np
import pytest

from attn.reproduction import paths, records
from attn.reproduction.errors import UsageError
from attn.reproduction.paths import results_dir, write_atomically
from attn.reproduction.records import (
    ARTIFACT_LIMIT,
    ARTIFACTS_LIMIT,
    RecordError,
    load_records,
    merge,
    pack,
    read_record,
    to_csv,
    write_record,
)
from tests.reproduction.toy import record_data

ARRAYS = {"weights": np.arange(12, dtype=np.float16).reshape(3, 4), "flags": np.array([True, False])}


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def record_of(seed=0, error=0.5, **changes):
    return record_data("toy2000", "fit/line", seed, {"error": error}, **changes)


def write(results, seed=0, error=0.5, artifact=ARRAYS, **changes):
    return write_record(results, record_of(seed, error, **changes), artifact)


def rewrite(record, change):
    """Change a record's file by hand."""
    data = json.loads(record.path.read_text())
    change(data)
    record.path.write_text(json.dumps(data))


def files(folder):
    """Every file below a folder, with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def only_skipped(results):
    """The reason of the one skipped file; nothing else is there."""
    valid, skipped = load_records(results)
    assert valid == []
    (item,) = skipped
    assert "\n" not in item.reason and len(item.reason) < 400
    return item.reason


# --- writing and reading -----------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path):
    written = write(tmp_path)
    assert written.path == tmp_path / "toy2000" / "fit" / "line" / "cpu" / "seed0.json"
    (record,), skipped = load_records(tmp_path)
    assert skipped == []
    assert record == written and record.data == written.data
    assert (record.key, record.seed) == (("toy2000", "fit/line", "cpu", 0), 0)
    assert record.metric("error") == 0.5
    assert record.history == [{"step": 0, "seen": 0, "error": 1.0}, {"step": 12, "seen": 24, "error": 0.5}]
    arrays = record.artifact()
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_a_record_without_artifact(tmp_path):
    record = write(tmp_path, artifact={})
    assert record.data["artifact"] is None and record.artifact() == {}
    assert list(files(tmp_path)) == ["toy2000/fit/line/cpu/seed0.json"]
    assert load_records(tmp_path)[0] == [record]


def test_an_artifact_that_is_no_longer_kept_goes(tmp_path):
    write(tmp_path)
    write(tmp_path, artifact={})
    assert list(files(tmp_path)) == ["toy2000/fit/line/cpu/seed0.json"]


def test_history_has_a_line_an_entry(tmp_path):
    text = write(tmp_path).path.read_text()
    assert '  {"step": 0, "seen": 0, "error": 1.0},\n' in text
    assert text.endswith("}\n")


def test_unknown_metrics_give_the_valid_ones(tmp_path):
    with pytest.raises(UsageError, match="no metric 'eror'; valid: error"):
        write(tmp_path).metric("eror")


def test_nothing_there(tmp_path):
    assert load_records(tmp_path / "none") == ([], [])


# --- files that are no valid record ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "not readable as JSON"),
        (b"not JSON", "not readable as JSON"),
        (b"\x93NUMPY\x00\xff", "not readable as JSON"),
        (b"{}", "top level: .* is a required property"),
        (b"[]", "top level: .* is not of type 'object'"),
        (b"null", "top level"),
        (b'{"cells": [], "nbformat": 4}', "top level"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"1" * 10_000, "not readable as JSON|top level"),
    ],
)
def test_foreign_files_are_named_and_skipped(tmp_path, content, named):
    good = write(tmp_path)
    (tmp_path / "toy2000" / "other.json").write_bytes(content)
    valid, (skipped,) = load_records(tmp_path)
    assert valid == [good]
    assert skipped.path == tmp_path / "toy2000" / "other.json"
    assert re.search(named, skipped.reason)
    assert len(skipped.reason) < 400 and "\n" not in skipped.reason


def test_a_folder_or_a_dangling_link_is_no_record(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "gone")
    valid, skipped = load_records(tmp_path)
    assert valid == [] and [item.path.name for item in skipped] == ["folder.json", "link.json"]


def test_a_cut_record_is_skipped_wherever_it_is_cut(tmp_path):
    record = write(tmp_path)
    whole = record.path.read_bytes()
    for length in range(0, len(whole) - 2, 97):
        record.path.write_bytes(whole[:length])
        assert only_skipped(tmp_path).startswith("not readable as JSON")


def test_a_reason_does_not_tell_where_the_folder_is(tmp_path):
    (tmp_path / "folder.json").mkdir()
    assert str(tmp_path) not in only_skipped(tmp_path)


@pytest.mark.parametrize(
    "place",
    ["toy2000/fit/line/cpu/seed1.json", "toy2000/fit/line/gpu/seed0.json", "other/fit/line/cpu/seed0.json"],
)
def test_a_record_in_the_wrong_place(tmp_path, place):
    record = write(tmp_path)
    target = tmp_path / place
    target.parent.mkdir(parents=True, exist_ok=True)
    record.path.rename(target)
    assert only_skipped(tmp_path) == "belongs at toy2000/fit/line/cpu/seed0.json"


def test_a_missing_artifact(tmp_path):
    write(tmp_path).path.with_suffix(".npz").unlink()
    assert only_skipped(tmp_path) == "its artifact seed0.npz is missing"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: b"", "its artifact seed0.npz has 0 bytes, not the record's number"),
        (lambda content: content[:-1], "bytes, not the record's number"),
        (lambda content: content[::-1], "its artifact seed0.npz has another sha256 than the record says"),
    ],
)
def test_another_artifact(tmp_path, change, reason):
    path = write(tmp_path).path.with_suffix(".npz")
    path.write_bytes(change(path.read_bytes()))
    assert reason in only_skipped(tmp_path)


def test_an_artifact_of_another_run(tmp_path):
    first, second = write(tmp_path, 0), write(tmp_path, 1)
    rewrite(second, lambda data: data["artifact"].update(file=first.data["artifact"]["file"]))
    valid, (skipped,) = load_records(tmp_path)
    assert valid == [first]
    assert "seed0.npz" in skipped.reason


def test_an_artifact_of_another_size_than_it_says(tmp_path):
    """Its hash may be right and its size over the limit all the same."""
    rewrite(write(tmp_path), lambda data: data["artifact"].update(bytes=1))
    assert "bytes" in only_skipped(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda data: data.pop("seed"), "'seed' is a required property"),
        (lambda data: data.update(mood="good"), "mood"),
        (lambda data: data.update(schema=2), "schema: 1 was expected"),
        (lambda data: data.update(profile="ci"), "profile: 'ci' is not one of"),
        (lambda data: data.update(seed=-1), "seed"),
        (lambda data: data.update(seed=True), "seed"),
        (lambda data: data.update(experiment="../escape"), "experiment"),
        (lambda data: data.update(metrics={}), "metrics"),
        (lambda data: data.update(history=[]), "history"),
        (lambda data: data["metrics"]["error"].pop("definition"), "metrics/error"),
        (lambda data: data["metrics"]["error"].update(definition="mean"), "metrics/error/definition"),
        (lambda data: data["metrics"]["error"].update(value="0.5"), "metrics/error/value"),
        (lambda data: data["metrics"]["error"].update(value=math.nan), "metrics/error.*finite"),
        (lambda data: data["metrics"]["error"].update(value=math.inf), "metrics/error.*finite"),
        (lambda data: data["history"][1].update(error=math.nan), "history.*finite"),
        (lambda data: data["history"][1].update(error="low"), "history/1"),
        (lambda data: data["run"].update(seconds=math.nan), "run/seconds.*finite"),
        (lambda data: data["run"].update(steps=0), "run/steps"),
        (lambda data: data["replay"].update(losses=[math.inf]), "replay/losses.*finite"),
        (lambda data: data["code"].update(commit="abc"), "code/commit"),
        (lambda data: data["code"].update(sources={}), "code/sources"),
        (lambda data: data["code"]["sources"].update(a="b"), "code/sources/a"),
        (lambda data: data["environment"].pop("device"), "environment"),
        (lambda data: data["data"].update(text="none"), "data/text"),
        (lambda data: data["artifact"].update(bytes=ARTIFACT_LIMIT + 1), "artifact/bytes"),
        (lambda data: data["artifact"].update(file="../seed0.npz"), "artifact/file"),
    ],
)
def test_every_fault_is_named_with_its_place(tmp_path, change, named):
    rewrite(write(tmp_path), change)
    reason = only_skipped(tmp_path)
    assert re.search(named, reason), reason


# --- refusing to write -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"error": math.nan}, "metrics/error"),
        ({"error": -math.inf}, "metrics/error"),
        ({"profile": "ci"}, "profile"),
        ({"history": [{"step": 0, "seen": 0, "error": math.inf}]}, "history"),
        ({"run": {}}, "run"),
    ],
)
def test_an_invalid_record_is_not_written(tmp_path, changes, named):
    with pytest.raises(RecordError, match=named):
        write(tmp_path, **changes)
    assert files(tmp_path) == {}


def test_an_artifact_over_its_limit_is_not_written(tmp_path):
    noise = np.random.default_rng(0).bytes(ARTIFACT_LIMIT + 1)
    with pytest.raises(RecordError, match=f"one may hold {ARTIFACT_LIMIT}"):
        write(tmp_path, artifact={"noise": np.frombuffer(noise, np.uint8)})
    assert files(tmp_path) == {}


def test_all_artifacts_together_have_a_limit(tmp_path):
    other = tmp_path / "other2000" / "seed0.npz"
    other.parent.mkdir()
    other.write_bytes(b"0" * (ARTIFACTS_LIMIT - 100))
    with pytest.raises(
        RecordError, match=f"all together {ARTIFACTS_LIMIT} .*{ARTIFACTS_LIMIT - 100} are used"
    ):
        write(tmp_path)
    assert load_records(tmp_path) == ([], [])
    other.write_bytes(b"0")
    own = write(tmp_path)
    (tmp_path / "other2000" / "seed0.npz").write_bytes(
        b"0" * (ARTIFACTS_LIMIT - own.data["artifact"]["bytes"])
    )
    assert write(tmp_path).data == own.data, "what it replaces does not count"


# --- kills -------------------------------------------------------------------------------------------------


@pytest.fixture
def kill_at(monkeypatch):
    """A function that lets the n-th file from now on be the moment of a kill."""

    def arm(number):
        count = 0

        def counted(path, content):
            nonlocal count
            count += 1
            if count == number:
                raise Killed
            write_atomically(path, content)

        monkeypatch.setattr(records, "write_atomically", counted)

    return arm


def test_a_kill_between_artifact_and_record_leaves_no_record(tmp_path, kill_at):
    kill_at(2)
    with pytest.raises(Killed):
        write(tmp_path)
    assert load_records(tmp_path) == ([], [])
    kill_at(0)
    written = write(tmp_path)
    assert load_records(tmp_path) == ([written], [])


def test_a_kill_while_a_record_is_replaced_leaves_the_old_one_or_none(tmp_path, kill_at):
    old = write(tmp_path, error=0.9)
    kill_at(2)
    with pytest.raises(Killed):
        write(tmp_path, error=0.1, artifact={"weights": np.zeros(3)})
    valid, skipped = load_records(tmp_path)
    assert skipped == [] and valid in ([], [old])


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_kill_while_merging_leaves_whole_records(tmp_path, kill_at, number):
    for seed in range(2):
        write(tmp_path / "a", seed)
    write(tmp_path / "b", 0, error=0.9, artifact={"weights": np.zeros(3)})
    kill_at(number)
    with pytest.raises(Killed):
        merge(tmp_path / "a", tmp_path / "b", replace=True)
    assert load_records(tmp_path / "b")[1] == []
    kill_at(0)
    merge(tmp_path / "a", tmp_path / "b", replace=True)
    assert files(tmp_path / "b") == files(tmp_path / "a")


def test_a_kill_while_a_file_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file"
    write_atomically(path, b"old")

    def kill(handle):
        raise Killed

    monkeypatch.setattr(paths.os, "fsync", kill)
    with pytest.raises(Killed):
        write_atomically(path, b"new")
    assert files(tmp_path) == {"folder/file": b"old"}


def test_what_a_kill_leaves_is_no_record_and_goes_with_the_next_write(tmp_path):
    """SIGKILL runs no clean-up, so the temporary file of the dead process stays."""
    record = write(tmp_path)
    left = record.path.with_name(".seed0.json.tmp")
    left.write_bytes(b'{"schema": 1')
    assert load_records(tmp_path) == ([record], [])
    write(tmp_path)
    assert not left.exists()


# --- pack and merge ----------------------------------------------------------------------------------------


@pytest.fixture
def grid(tmp_path):
    """Three records, one revalidated, one without artifact, beside files that are none."""
    results = tmp_path / "grid"
    for seed in range(2):
        write(results, seed)
    write(results, 2, artifact={})
    (results / "toy2000/fit/line/cpu/seed0.valid.json").write_text('{"state": "x"}')
    return results


def test_pack_and_merge_into_an_empty_folder_is_the_same(grid, tmp_path):
    before = files(grid)
    packed = tmp_path / "grid.tar.gz"
    assert pack(grid, packed) == 3
    written, left_out = merge(packed, tmp_path / "copy")
    assert left_out == []
    assert [path.name for path in written] == ["seed0.json", "seed1.json", "seed2.json"]
    assert files(tmp_path / "copy") == before == files(grid)
    assert merge(grid, tmp_path / "other")[1] == []
    assert files(tmp_path / "other") == before


def test_a_pack_does_not_tell_who_made_it(grid, tmp_path):
    pack(grid, tmp_path / "one.tar.gz")
    with tarfile.open(tmp_path / "one.tar.gz") as archive:
        assert {(member.uname, member.gname, member.uid) for member in archive} == {("", "", 0)}


def test_only_valid_records_are_packed(grid, tmp_path):
    (grid / "note.json").write_text("{}")
    (grid / "toy2000/fit/line/cpu/seed1.npz").unlink()
    assert pack(grid, tmp_path / "grid.tar.gz") == 2
    with tarfile.open(tmp_path / "grid.tar.gz") as archive:
        names = [name.rpartition("/")[2] for name in archive.getnames()]
    assert sorted(names) == ["seed0.json", "seed0.npz", "seed0.valid.json", "seed2.json"]


def test_merging_twice_changes_nothing(grid, tmp_path):
    target = tmp_path / "copy"
    merge(grid, target)
    before = files(target)
    assert merge(grid, target)[1] == []
    assert files(target) == before


def test_merging_what_is_there_already_keeps_its_revalidation(grid, tmp_path, kill_at):
    target = tmp_path / "copy"
    merge(grid, target)
    (grid / "toy2000/fit/line/cpu/seed0.valid.json").unlink()
    (grid / "toy2000/fit/line/cpu/seed1.valid.json").write_text('{"state": "y"}')
    merge(grid, target)
    found = {path.name: path.read_text() for path in target.rglob("*.valid.json")}
    assert found == {"seed0.valid.json": '{"state": "x"}', "seed1.valid.json": '{"state": "y"}'}
    kill_at(1)
    try:
        merge(grid, target)
    except Killed:
        pass
    assert len(load_records(target)[0]) == 3, "a kill loses no record that was there and equal"


def test_a_different_record_is_kept_out_unless_it_may_replace(grid, tmp_path):
    target = tmp_path / "mine"
    write(target, 1, error=0.9, artifact={})
    mine = files(target)
    written, left_out = merge(grid, target)
    assert [path.name for path in written] == ["seed0.json", "seed2.json"]
    assert left_out == ["toy2000/fit/line/cpu/seed1.json: another record of this run is there"]
    assert files(target)["toy2000/fit/line/cpu/seed1.json"] == mine["toy2000/fit/line/cpu/seed1.json"]
    assert "toy2000/fit/line/cpu/seed1.npz" not in files(target)
    merge(grid, target, replace=True)
    assert files(target) == files(grid)


def test_invalid_records_are_left_out_by_name(grid, tmp_path):
    (grid / "toy2000/fit/line/cpu/seed1.npz").write_bytes(b"cut")
    written, (sentence,) = merge(grid, tmp_path / "copy")
    assert len(written) == 2
    assert sentence.startswith("toy2000/fit/line/cpu/seed1.json: its artifact seed1.npz")
    assert load_records(tmp_path / "copy")[1] == []


def test_merged_artifacts_keep_to_the_limit_of_all(tmp_path):
    write(tmp_path / "a", 0)
    full = tmp_path / "b" / "other2000" / "seed0.npz"
    full.parent.mkdir(parents=True)
    full.write_bytes(b"0" * (ARTIFACTS_LIMIT - 100))
    try:
        _, left_out = merge(tmp_path / "a", tmp_path / "b")
    except RecordError as error:
        left_out = [str(error)]
    assert len(left_out) == 1 and str(ARTIFACTS_LIMIT) in left_out[0]
    assert load_records(tmp_path / "b")[0] == []


def archive_of(path, **members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_a_member_that_would_leave_the_folder_is_refused(tmp_path):
    source = tmp_path / "deep" / "evil.tar.gz"
    source.parent.mkdir()
    archive_of(source, **{"../escaped.json": b"{}"})
    with pytest.raises(RecordError, match="evil.tar.gz.*escaped.json") as caught:
        merge(source, tmp_path / "results")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("escaped.json")) and not (tmp_path / "results").exists()


def test_a_link_in_an_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("seed0.json")
        member.type, member.linkname = tarfile.SYMTYPE, "../../../etc/passwd"
        archive.addfile(member)
    with pytest.raises(RecordError, match="evil.tar.gz"):
        merge(tmp_path / "evil.tar.gz", tmp_path / "results")


def test_a_cut_archive_is_refused(grid, tmp_path):
    pack(grid, tmp_path / "grid.tar.gz")
    whole = (tmp_path / "grid.tar.gz").read_bytes()
    for length in (len(whole) // 2, len(whole) - 20):
        (tmp_path / "grid.tar.gz").write_bytes(whole[:length])
        with pytest.raises(RecordError, match="grid.tar.gz"):
            merge(tmp_path / "grid.tar.gz", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("content", [b"", b"text"])
def test_neither_folder_nor_archive(tmp_path, content):
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(
        RecordError, match="notes.txt is neither a folder nor a file made by `attn results pack`"
    ):
        merge(tmp_path / "notes.txt", tmp_path / "results")


# --- CSV ---------------------------------------------------------------------------------------------------


def test_csv_has_a_line_for_each_record_and_metric(tmp_path):
    two = record_of(0)
    two["metrics"]["slope"] = {"value": 1e-17, "unit": "none", "definition": 'fitted, as "drawn"\nor so'}
    made = [write_record(tmp_path, two, {}), write(tmp_path, 1, artifact={}, error=0.25)]
    lines = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert [(line["seed"], line["metric"], float(line["value"])) for line in lines] == [
        ("0", "error", 0.5),
        ("0", "slope", 1e-17),
        ("1", "error", 0.25),
    ]
    assert lines[1]["definition"] == 'fitted, as "drawn"\nor so'
    common = {"paper": "toy2000", "experiment": "fit/line", "profile": "cpu", "steps": "12", "seen": "24",
              "seconds": "60.0", "device": "cpu", "torch": "2.11.0", "commit": "a" * 40}  # fmt: skip
    assert all(line | common == line for line in lines)


def test_csv_without_records_is_its_header():
    assert to_csv([]).splitlines() == [to_csv([]).strip()]
    assert to_csv([]).startswith("paper,experiment,profile,seed,metric,value,unit")


# --- the committed records ---------------------------------------------------------------------------------


def test_every_committed_file_is_a_valid_record():
    valid, skipped = load_records(results_dir())
    assert [f"{item.path.name}: {item.reason}" for item in skipped] == []
    for record in valid:
        assert read_record(record.path, results_dir()).data == record.data


def test_committed_artifacts_belong_to_records_and_keep_to_their_limits():
    valid, _ = load_records(results_dir())
    owned = {r.path.with_name(r.data["artifact"]["file"]) for r in valid if r.data["artifact"]}
    found = set(results_dir().rglob("*.npz"))
    assert found == owned
    sizes = [path.stat().st_size for path in found]
    assert all(size <= ARTIFACT_LIMIT for size in sizes) and sum(sizes) <= ARTIFACTS_LIMIT
    for record in valid:
        arrays = record.artifact()
        for name, array in arrays.items():
            if array.dtype.kind == "U":
                assert array.size, f"{record.path.name} {name} holds no text"
            else:
                there = np.isfinite(array.astype(np.float64))
                assert (there | absent(arrays, name)).all(), f"{record.path.name} {name}"
                assert not (there & absent(arrays, name)).any(), f"{record.path.name} {name}"


def absent(arrays, name):
    """Where an array has nothing to hold: rows of the test on copied letters are as long as their targets."""
    if name != "right_by_position":
        return np.False_
    return np.arange(arrays[name].shape[1]) > arrays["lengths"][:, None]
