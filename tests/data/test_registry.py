import os
import subprocess
import sys
from pathlib import Path

import pytest

from attn.data import download, registry
from attn.data.errors import RegistryError, UnknownCorpus, UnknownFile, UnknownSplit

WANTED = """enwik8 text8 wikitext-2 wikitext-103 wmt14-en-de wmt14-en-fr multi30k tatoeba-en-de tatoeba-en-fr
    treebank-sample omniglot wikipedia-xml wikipedia-extract novels tinyshakespeare word-alignment
    python-stdlib""".split()


def test_the_corpora_of_the_book_are_registered():
    assert set(WANTED) <= set(registry.corpora())


@pytest.mark.parametrize("corpus", registry.corpora().values(), ids=lambda corpus: corpus.id)
def test_every_entry_tells_what_it_is(corpus):
    for text in (corpus.title, corpus.about, corpus.licence):
        assert text.strip()
    assert corpus.home.startswith(("http://", "https://"))
    assert corpus.splits_note, "whose splits these are, or that there are none"
    for file in corpus.files:
        # A file that no address serves can only be recognised by its checksum.
        assert all(form.checksum or form.urls for form in file.forms)
        assert file.member or corpus.built_in or not file.forms[0].path.endswith((".zip", ".tgz", ".tar"))


def test_stand_ins_are_named_as_such():
    stand_ins = {corpus.id for corpus in registry.corpora().values() if corpus.stand_in_for}
    assert {"enwik8-prefix", "multi30k", "tatoeba-en-de", "treebank-sample", "python-stdlib"} <= stand_ins
    assert not stand_ins & {"enwik8", "text8", "wikitext-103", "wmt14-en-de", "wmt14-en-fr", "omniglot"}


@pytest.mark.parametrize("corpus_id", ["enwik8", "text8"])
def test_byte_corpora_are_split_as_in_the_papers(corpus_id):
    splits = registry.get(corpus_id).splits
    ranges = [(split.name, split.start, split.stop) for split in splits]
    assert ranges == [
        ("train", 0, 90_000_000),
        ("valid", 90_000_000, 95_000_000),
        ("test", 95_000_000, 100_000_000),
    ]


def test_wmt_is_split_as_in_the_papers():
    corpus = registry.get("wmt14-en-de")
    assert corpus.split("valid").files == ("newstest2013.en", "newstest2013.de")
    assert corpus.split("test").files == ("newstest2014.en", "newstest2014.de")
    assert len(corpus.split("train").files) == 6


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(UnknownCorpus, match="'enwik9'; valid: enwik8, .*wmt14-en-de"):
        registry.get("enwik9")
    with pytest.raises(UnknownFile, match="'train.cs'; valid: .*train.de, train.en, train.fr"):
        registry.get("multi30k").file("train.cs")
    with pytest.raises(UnknownSplit, match="'dev'; valid: .*train, valid"):
        registry.get("multi30k").split("dev")


def test_a_corpus_passes_through_get(make_corpus):
    corpus = make_corpus(b"text")
    assert registry.get(corpus) is corpus


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"path": "../text"}, "path '../text' has to be relative"),
        ({"path": "/text"}, "path '/text' has to be relative"),
        ({"path": "a\\text"}, "has to be relative"),
        ({"size": -1}, "size -1 has to be"),
        ({"size": True}, "size True has to be"),
        ({"sha256": "abc"}, "sha256 'abc' has to be 64 hex digits"),
        ({"md5": "A" * 32}, "md5 'A+' has to be 32 hex digits"),
        ({"urls": ["ftp://example.org/text"]}, "address 'ftp://example.org/text' has to start with http"),
        ({"urls": ["http:///text"]}, "address 'http:///text' has to start with http"),
        ({"colour": "red"}, "has unknown colour; valid keys: .*sha256"),
        ({"unpacked": {"size": 1}}, "unpacked: lacks sha256, urls"),
    ],
)
def test_malformed_files_are_refused(make_table, facts, complaint):
    with pytest.raises(RegistryError, match=complaint):
        registry.parse(make_table(b"text", **facts))


@pytest.mark.parametrize(
    ("split", "complaint"),
    [
        ({"files": ["other"]}, "split 'train' names other, which are no files"),
        ({"files": ["text"], "bytes": [5, 5]}, "range .5, 5., not two ascending"),
        ({"files": ["text"], "bytes": [0.0, 0.5]}, "ascending numbers of type int"),
        ({"files": ["text"], "share": [0, 1]}, "ascending numbers of type float"),
        ({"files": ["text"], "lines": [0, 1]}, "has unknown lines"),
        ({}, "lacks files"),
    ],
)
def test_malformed_splits_are_refused(make_table, split, complaint):
    table = make_table(b"text")
    table["small"]["splits"] = {"train": split}
    with pytest.raises(RegistryError, match=complaint):
        registry.parse(table)


def test_malformed_corpora_are_refused(make_table):
    table = make_table(b"text")
    del table["small"]["licence"]
    with pytest.raises(RegistryError, match="corpus 'small' lacks licence; valid keys: about, "):
        registry.parse(table)

    table = make_table(b"text")
    table["small"]["files"] *= 2
    with pytest.raises(RegistryError, match="files with distinct ids, not .'text', 'text'."):
        registry.parse(table)

    table = make_table(b"text")
    table["small"]["files"][0]["texts"] = {"a": "a.txt"}
    with pytest.raises(RegistryError, match="needs either id or texts"):
        registry.parse(table)

    table = {**make_table(b"text"), "other": make_table(b"another")["small"]}
    with pytest.raises(RegistryError, match="corpus 'other': small/text.txt is registered twice with"):
        registry.parse(table)


def test_share_splits_neither_overlap_nor_leave_a_gap():
    splits = registry.get("enwik8-prefix").splits
    for length in (0, 1, 7, 19, 20, 1_071_051):
        text = bytes(i % 251 for i in range(length))
        assert b"".join(split.cut(text) for split in splits) == text


def test_importing_is_light_and_knows_nothing_of_training():
    code = (
        "import sys, attn.data.reading as reading; reading.registry.corpora(); "
        "print(*sorted(name for name in sys.modules if name.startswith('attn.')), sep=','); "
        "print(*{'torch', 'numpy', 'requests', 'filelock', 'platformdirs', 'tqdm'} & set(sys.modules))"
    )
    root = str(Path(registry.__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    ours, heavy = done.stdout.split("\n")[:2]
    assert all(name.startswith("attn.data") for name in ours.split(","))
    assert heavy == ""


def test_real_files_are_all_registered_and_verify(real_data):
    statuses = {
        report.path: report.status for corpus in registry.corpora() for report in download.verify(corpus)
    }
    wrong = [path for path, status in statuses.items() if status == "wrong"]
    assert not wrong

    listing = Path(real_data) / "SHA256SUMS"
    if not listing.is_file():
        pytest.skip(f"{real_data} has no SHA256SUMS to compare the registry with")
    listed = dict(reversed(line.split()) for line in listing.read_text().splitlines())
    assert {path: statuses.get(path) for path in listed} == dict.fromkeys(listed, "ok")
    registered = {
        form.path: form.sha256
        for corpus in registry.corpora().values()
        for file in corpus.files
        for form in file.forms
    }
    assert {path: registered[path] for path in listed} == listed
