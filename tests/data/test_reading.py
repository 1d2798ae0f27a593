import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile

import pytest

from attn.data import download, python_source, reading, registry
from attn.data.errors import FileMissing, UnreadableFile, UnsafeArchive, WrongMembers

TEXT = "Mehr Licht! \u2014 A \u2028 separator, a \x85 and a \r inside a line.\nThe end.\n"
RAW = TEXT.encode()


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return buffer.getvalue()


@pytest.fixture
def keep(make_corpus, mirror):
    """Puts `content` below `$ATTN_DATA` and returns the corpus that has it as "text"."""

    def keep(content, path="small/text.txt", **facts):
        (mirror / "small").mkdir()
        (mirror / path).write_bytes(content)
        return make_corpus(content, path=path, **facts)

    return keep


@pytest.mark.parametrize(
    ("path", "content", "member"),
    [
        ("small/text.txt", RAW, None),
        ("small/text.gz", gzip.compress(RAW), None),
        ("small/text.bz2", bz2.compress(RAW), None),
        ("small/text.xz", lzma.compress(RAW), None),
        ("small/text.zip", zipped({"other": b"no", "in/text": RAW, "__MACOSX/._text": b"no"}), "in/text"),
        ("small/text.tgz", tarred({"other": b"no", "in/text": RAW}), "in/text"),
        ("small/text.tar", tarred({"in/text.gz": gzip.compress(RAW)}, "w"), "in/text.gz"),
        ("small/text.tar.xz", tarred({"in/text": RAW}, "w:xz"), "in/text"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("small") else "",
)
def test_a_text_is_the_same_however_it_is_packed(keep, path, content, member):
    corpus = keep(content, path, **({"member": member} if member else {}))
    assert reading.read_bytes(corpus, "text") == RAW
    with reading.open_bytes(corpus, "text") as stream:
        assert stream.read(5) + stream.read() == RAW
    with reading.open_text(corpus, "text") as lines:
        assert list(lines) == [line + "\n" for line in TEXT.split("\n")[:-1]]


def test_members_come_in_the_order_of_their_names(keep):
    files = {"b/2.txt": b"two ", "b/10.txt": b"ten ", "a.md": b"no", "b/deep/3.txt": b"three"}
    corpus = keep(tarred(files), "small/texts.tgz", member="b/*.txt")
    assert [name for name, _ in reading.members(corpus, "text")] == ["b/10.txt", "b/2.txt", "b/deep/3.txt"]
    assert reading.read_bytes(corpus, "text") == b"ten two three"
    with pytest.raises(WrongMembers, match="is many texts: read it with `members`"):
        reading.open_text(corpus, "text")


def test_several_texts_of_one_archive(keep):
    content = zipped({"train.txt": b"train", "test.txt": b"test"})
    corpus = keep(content, "small/a.zip", texts={"train": "train.txt", "test": "test.txt"})
    assert reading.read_bytes(corpus, "train") == b"train"
    assert reading.read_bytes(corpus, "test") == b"test"


def test_an_encoding_can_be_registered(keep):
    corpus = keep("\ufeffA novel".encode(), encoding="utf-8-sig")
    with reading.open_text(corpus, "text") as lines:
        assert lines.read() == "A novel"


def test_a_missing_member_is_named(keep):
    corpus = keep(zipped({"other": b""}), "small/a.zip", member="text")
    for read in (reading.read_bytes, reading.open_text):
        with pytest.raises(WrongMembers, match="a.zip holds no member 'text'"):
            read(corpus, "text")


UNSAFE_NAMES = ["../evil", "in/../../evil", "/evil", "..\\evil", "C:\\evil"]
ZIP_LINK = zipfile.ZipInfo("link")
ZIP_LINK.external_attr = (stat.S_IFLNK | 0o777) << 16


@pytest.mark.parametrize("pattern", ["text", "*"])
@pytest.mark.parametrize(
    ("path", "content"),
    [
        *[("small/a.zip", zipped({name: b"evil", "text": RAW})) for name in UNSAFE_NAMES],
        *[("small/a.zip", zipped({"text": RAW, name: b"evil"})) for name in UNSAFE_NAMES],
        *[("small/a.tgz", tarred({name: b"evil", "text": RAW})) for name in UNSAFE_NAMES],
        ("small/a.zip", zipped({ZIP_LINK: b"/etc/passwd", "text": RAW})),
        ("small/a.tgz", tarred({"link": (tarfile.SYMTYPE, "/etc/passwd"), "text": RAW})),
        ("small/a.tgz", tarred({"link": (tarfile.LNKTYPE, "text"), "text": RAW})),
    ],
)
def test_archives_that_lead_outside_are_refused(keep, path, content, pattern):
    corpus = keep(content, path, member=pattern)
    with pytest.raises(UnsafeArchive, match="a.(zip|tgz) holds the member .* delete it"):
        reading.read_bytes(corpus, "text")


@pytest.mark.parametrize(
    ("path", "content", "member"),
    [
        ("small/text.gz", gzip.compress(RAW * 9000)[:-20], None),
        ("small/text.gz", b"no gzip at all", None),
        ("small/text.bz2", b"no bzip2 at all", None),
        ("small/text.xz", lzma.compress(RAW)[:-20], None),
        ("small/text.zip", zipped({"text": RAW})[:-20], "text"),
        ("small/text.tgz", tarred({"text": bytes(99_999)})[:-40], "text"),
    ],
)
def test_a_damaged_file_of_unknown_checksum_is_named(keep, path, content, member):
    facts = {"member": member} if member else {}
    corpus = keep(content, path, size="unknown", sha256="unknown", **facts)

    def read_lines():
        with reading.open_text(corpus, "text") as lines:
            return list(lines)

    for read in (lambda: reading.read_bytes(corpus, "text"), read_lines):
        with pytest.raises(UnreadableFile, match=r"text\.\w+ cannot be read \(.+\): delete it and"):
            read()


def test_errors_of_the_reader_of_a_text_are_its_own(keep):
    corpus = keep(RAW)
    with pytest.raises(OSError, match="not about the corpus"):
        with reading.open_text(corpus, "text"):
            raise OSError("not about the corpus")


def test_splits(keep):
    ten = {"files": ["text"], "bytes": [0, 10]}
    half = {"files": ["text"], "share": [0.5, 1.0]}
    corpus = keep(b"0123456789abcdefghij", splits={"head": ten, "half": half, "all": {"files": ["text"]}})
    assert reading.read_split(corpus, "head") == {"text": b"0123456789"}
    assert reading.read_split(corpus, "half") == {"text": b"abcdefghij"}
    assert reading.read_split(corpus, "all", ["text"]) == {"text": b"0123456789abcdefghij"}
    assert reading.read_split(corpus, "all", []) == {}


def test_reading_can_be_kept_off_the_network():
    for read in (reading.read_bytes, reading.open_text, reading.open_bytes):
        with pytest.raises(FileMissing, match="downloading is off"):
            read("enwik8", "enwik8", download=False)
    with pytest.raises(FileMissing, match="downloading is off"):
        reading.read_split("enwik8", "test", download=False)


def test_python_source_is_a_text_everywhere():
    names = [name for name, _ in reading.members("python-stdlib", "source")]
    assert "argparse.py" in names and "json/decoder.py" in names
    assert not [name for name in names if "site-packages" in name or "/test/" in f"/{name}"]
    text = reading.read_bytes("python-stdlib", "source")
    assert len(text) > 3_000_000
    assert text.decode("utf-8")
    parts = [reading.read_split("python-stdlib", name)["source"] for name in ("train", "valid", "test")]
    assert b"".join(parts) == text
    assert [round(len(part) / len(text), 3) for part in parts] == [0.9, 0.05, 0.05]


def test_python_source_is_recorded_by_version_and_checksum():
    import hashlib
    import platform

    text = reading.read_bytes("python-stdlib", "source")
    sums = download.checksums("python-stdlib")
    assert sums == {f"python-stdlib/{platform.python_version()}": hashlib.sha256(text).hexdigest()}
    assert download.locate("python-stdlib", "source") == python_source.folder()
    assert [report.status for report in download.verify("python-stdlib")] == ["unchecked"]
    with pytest.raises(WrongMembers):
        reading.open_text("python-stdlib", "source")


def test_a_python_without_source_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(python_source, "folder", lambda: tmp_path)
    with pytest.raises(FileMissing, match="holds no Python source"):
        reading.read_bytes("python-stdlib", "source")


def real_text(corpus_id, file_id):
    """A text that `$ATTN_DATA` has; skips the test if it has not."""
    try:
        return reading.read_bytes(corpus_id, file_id, download=False)
    except FileMissing as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("corpus_id", "file_id", "n_bytes", "n_lines"),
    [
        ("enwik8-prefix", "enwik8", 1_071_051, 13_162),
        ("wikitext-2", "test", 1_256_449, 4_358),
        ("multi30k", "train.de", 2_110_398, 29_000),
        ("wmt14-en-de", "newstest2014.de", 399_406, 3_003),
        ("wmt14-en-fr", "newstest2014.fr", 445_720, 3_003),
        ("tatoeba-en-fr", "pairs", 11_669_748, 167_130),
        ("tinyshakespeare", "text", 1_115_394, 40_000),
        ("word-alignment", "gold", 86_961, 447),
    ],
)
def test_real_texts_have_their_known_size(real_data, corpus_id, file_id, n_bytes, n_lines):
    text = real_text(corpus_id, file_id)
    assert (len(text), text.count(b"\n")) == (n_bytes, n_lines)
    with reading.open_text(corpus_id, file_id) as lines:
        assert abs(sum(1 for _ in lines) - n_lines) <= 1  # a last line may lack its end


def test_real_parallel_texts_stay_aligned(real_data):
    for corpus_id in ("multi30k", "wmt14-en-de", "wmt14-en-fr"):
        for split in ("valid", "test") if corpus_id != "multi30k" else ("train", "valid"):
            files = registry.get(corpus_id).split(split).files
            counts = {file_id: real_text(corpus_id, file_id).count(b"\n") for file_id in files}
            assert len(set(counts.values())) == 1, (corpus_id, counts)


@pytest.mark.parametrize(
    ("corpus_id", "file_id", "count"),
    [("treebank-sample", "trees", 199), ("novels", "novels", 94), ("omniglot", "background-small1", 2720)],
)
def test_real_archives_have_their_known_members(real_data, corpus_id, file_id, count):
    try:
        names = [name for name, _ in reading.members(corpus_id, file_id, download=False)]
    except FileMissing as error:
        pytest.skip(str(error))
    assert len(set(names)) == len(names) == count
