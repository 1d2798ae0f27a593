import errno
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from attn.data import download, registry, transfer
from attn.data.errors import (
    CutDownload,
    DataFolderMissing,
    DiskFull,
    DownloadError,
    FileMissing,
    MissingExtra,
    NoConnection,
    NotServed,
    NotWritable,
    UnknownCorpus,
    UnreadableFile,
    WrongChecksum,
    WrongDownload,
)

TEXT = b"It was the best of times, it was the worst of times.\n" * 4000
SHA256 = hashlib.sha256(TEXT).hexdigest()
OTHER = TEXT.replace(b"best", b"last")


def put(folder, content=TEXT, path="small/text.txt"):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
    return folder / path


def files_in(folder):
    """Every file below `folder`, locks left out."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file() and ".locks" not in path.parts)


def refusal(kind, call, *args, **kwargs):
    """The message of the error raised, which has to be of exactly this class and one line."""
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert caught.type is kind
    assert "\n" not in message and "object at 0x" not in message and message
    return message


def refused_download(kind, corpus, cache):
    """As `refusal` of a download, which has to name file and next step and to leave nothing behind."""
    message = refusal(kind, download.locate, corpus, "text")
    assert "text.txt" in message
    assert re.search(r"try again later, or put \S+ below the folder that ATTN_DATA names", message)
    assert files_in(cache) == []
    return message


# --- looking up ---


def test_attn_data_comes_first_then_the_cache(make_corpus, mirror, cache):
    corpus = make_corpus(TEXT)
    cached = put(cache)
    assert download.locate(corpus, "text") == cached
    own = put(mirror)
    assert download.locate(corpus, "text") == own


def test_missing_with_download_off(make_corpus, server, mirror, cache):
    corpus = make_corpus(TEXT, server.serve("/text", TEXT))
    message = refusal(FileMissing, download.locate, corpus, "text", download=False)
    for part in ("small/text.txt", str(mirror), str(cache), "attn data fetch small", corpus.home):
        assert part in message
    assert server.hits.total() == 0


def test_missing_where_no_address_serves_it(make_corpus):
    message = refusal(FileMissing, download.locate, make_corpus(TEXT), "text")
    assert "no single address serves it" in message and "https://example.org/small" in message
    assert "attn data fetch" not in message


@pytest.mark.parametrize("content", [OTHER, TEXT[:-5]], ids=["checksum", "size"])
def test_a_wrong_file_in_attn_data_is_refused_not_replaced(make_corpus, server, mirror, cache, content):
    corpus = make_corpus(TEXT, server.serve("/text", TEXT))
    put(cache)
    path = put(mirror, content)
    message = refusal(WrongChecksum, download.locate, corpus, "text")
    assert str(path) in message and "replace or remove it" in message
    assert path.read_bytes() == content
    assert server.hits.total() == 0


def test_a_wrong_file_in_the_cache_is_refused(make_corpus, cache):
    path = put(cache, OTHER)
    message = refusal(WrongChecksum, download.locate, make_corpus(TEXT), "text")
    assert str(path) in message and hashlib.sha256(OTHER).hexdigest() in message and SHA256 in message
    assert "delete it and run `attn data fetch small`" in message


def test_a_file_that_changes_is_read_again(make_corpus, mirror):
    corpus = make_corpus(TEXT)
    path = put(mirror)
    assert download.locate(corpus, "text") == path
    path.write_bytes(OTHER)
    os.utime(path, (1, 1))
    refusal(WrongChecksum, download.locate, corpus, "text")


def test_md5_is_used_where_only_that_is_published(make_corpus, mirror):
    corpus = make_corpus(None, md5=hashlib.md5(TEXT).hexdigest())
    path = put(mirror)
    assert download.locate(corpus, "text") == path
    path.write_bytes(OTHER)
    assert "md5" in refusal(WrongChecksum, download.locate, corpus, "text")


def test_the_unpacked_form_serves_as_well(make_corpus, cache, server):
    url = server.serve("/raw", TEXT)
    raw = {"size": len(TEXT), "sha256": SHA256, "urls": [url]}
    corpus = make_corpus(b"packed", path="small/text.txt.gz", unpacked=raw)
    assert download.locate(corpus, "text") == cache / "small/text.txt"
    assert download.locate(corpus, "text", download=False) == cache / "small/text.txt"
    assert download.checksums(corpus) == {"small/text.txt": SHA256}


def test_attn_data_has_to_be_a_folder(make_corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("ATTN_DATA", str(tmp_path / "nowhere"))
    message = refusal(DataFolderMissing, download.locate, make_corpus(TEXT), "text")
    assert str(tmp_path / "nowhere") in message and "correct or unset it" in message


def test_the_cache_is_the_users_own_unless_named(monkeypatch):
    import platformdirs

    monkeypatch.delenv("ATTN_CACHE")
    assert platformdirs.user_cache_path("attn") in download.cache_folder().parents


@pytest.mark.parametrize("package", ["requests", "filelock", "platformdirs"])
def test_a_missing_package_is_named_with_its_extra(make_corpus, server, monkeypatch, package):
    corpus = make_corpus(TEXT, server.serve("/text", TEXT))
    monkeypatch.setitem(sys.modules, package, None)
    if package == "platformdirs":
        monkeypatch.delenv("ATTN_CACHE")
    message = refusal(MissingExtra, download.locate, corpus, "text")
    assert f"pip install {package}" in message and "`repro`" in message


def test_what_is_in_attn_data_needs_no_further_package(make_corpus, mirror, monkeypatch):
    monkeypatch.delenv("ATTN_CACHE")
    for package in ("requests", "filelock", "platformdirs"):
        monkeypatch.setitem(sys.modules, package, None)
    path = put(mirror)
    assert download.locate(make_corpus(TEXT), "text") == path


# --- downloading ---


def test_download_then_reuse(make_corpus, server, cache):
    corpus = make_corpus(TEXT, server.serve("/text", TEXT))
    path = download.locate(corpus, "text")
    assert path == cache / "small/text.txt" and path.read_bytes() == TEXT
    assert download.locate(corpus, "text") == path
    assert server.hits["/text"] == 1
    assert files_in(cache) == [path]


@pytest.mark.parametrize("announce", [True, None])
def test_without_registered_size_or_checksum_it_is_taken_and_its_checksum_told(make_corpus, server, announce):
    corpus = make_corpus(None, server.serve("/text", TEXT, announce=announce))
    assert download.checksums(corpus) == {"small/text.txt": SHA256}
    assert [report.status for report in download.verify(corpus)] == ["unchecked"]


def test_packed_files_stay_packed_though_a_server_calls_them_encoded(make_corpus, server):
    import gzip

    packed = gzip.compress(TEXT)
    url = server.serve("/text.gz", packed, Content_Encoding="gzip")
    path = download.locate(make_corpus(packed, url, path="small/text.txt.gz"), "text")
    assert path.read_bytes() == packed


def test_wrong_checksum(make_corpus, server, cache):
    url = server.serve("/text", OTHER)
    message = refused_download(WrongDownload, make_corpus(TEXT, url), cache)
    assert url in message and hashlib.sha256(OTHER).hexdigest() in message and SHA256 in message


@pytest.mark.parametrize("announce", [True, None])
def test_larger_than_registered(make_corpus, server, cache, announce):
    url = server.serve("/text", TEXT + b"more", announce=announce)
    message = refused_download(WrongDownload, make_corpus(TEXT, url), cache)
    assert f"{len(TEXT) + 4} bytes where {len(TEXT)} are registered" in message


@pytest.mark.parametrize("registered", [TEXT, None], ids=["registered", "unregistered"])
def test_body_shorter_than_announced(make_corpus, server, cache, registered):
    url = server.serve("/text", TEXT, sent=1000)
    message = refused_download(CutDownload, make_corpus(registered, url), cache)
    assert f"{url} broke off after" in message and f"of {len(TEXT)} bytes" in message


@pytest.mark.parametrize("announce", [1000, None])
def test_body_shorter_than_registered(make_corpus, server, cache, announce):
    url = server.serve("/text", TEXT, sent=1000, announce=announce)
    message = refused_download(CutDownload, make_corpus(TEXT, url), cache)
    assert f"1000 bytes where {len(TEXT)} are registered" in message


def test_not_found_on_the_server(make_corpus, server, cache):
    message = refused_download(NotServed, make_corpus(TEXT, server.url + "/gone"), cache)
    assert f"{server.url}/gone answers 404 Not Found" in message


def test_a_web_page_is_not_taken_for_a_file_of_unknown_checksum(make_corpus, server, cache):
    url = server.serve("/text", b"<html>Please log in</html>", Content_Type="text/html; charset=utf-8")
    assert "answers with a web page" in refused_download(NotServed, make_corpus(None, url), cache)


def test_no_network(make_corpus, cache):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/text"
    message = refused_download(NoConnection, make_corpus(TEXT, url), cache)
    assert f"no connection to {url}" in message and "refused" in message


def test_a_server_that_falls_silent(make_corpus, server, cache, monkeypatch):
    monkeypatch.setattr(transfer, "_TIMEOUT_SECONDS", (5, 0.2))
    done = threading.Event()
    url = server.serve("/text", TEXT, before_rest=done.wait)
    try:
        message = refused_download(NoConnection, make_corpus(TEXT, url), cache)
    finally:
        done.set()
    assert f"{url} fell silent" in message


def test_the_next_address_is_tried_and_that_is_said(make_corpus, server, caplog):
    good = server.serve("/good", TEXT)
    corpus = make_corpus(TEXT, server.url + "/gone", server.serve("/wrong", OTHER), good)
    with caplog.at_level(logging.WARNING):
        assert download.locate(corpus, "text").read_bytes() == TEXT
    assert [record.getMessage().endswith("trying the next address") for record in caplog.records] == [
        True
    ] * 2


def test_when_addresses_fail_differently_all_reasons_are_told(make_corpus, server, cache):
    corpus = make_corpus(TEXT, server.url + "/gone", server.serve("/wrong", OTHER))
    message = refused_download(DownloadError, corpus, cache)
    assert "404" in message and hashlib.sha256(OTHER).hexdigest() in message


def test_a_failed_download_does_not_stand_in_the_way_of_the_next(make_corpus, server, cache):
    corpus = make_corpus(TEXT, server.serve("/text", TEXT, sent=1000))
    refused_download(CutDownload, corpus, cache)
    server.serve("/text", TEXT)
    assert download.locate(corpus, "text").read_bytes() == TEXT


def test_too_little_room_is_seen_before_downloading(make_corpus, server, cache, monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    message = refusal(DiskFull, download.locate, make_corpus(TEXT, server.serve("/text", TEXT)), "text")
    assert f"text.txt needs {len(TEXT)} bytes where 100 are free in {cache / 'small'}" in message
    assert "ATTN_CACHE" in message and files_in(cache) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_disk_full_while_writing(make_corpus, server, cache, monkeypatch):
    def on_a_full_disk(part):
        part.touch()
        return open("/dev/full", "wb")

    monkeypatch.setattr(transfer, "_create", on_a_full_disk)
    message = refusal(DiskFull, download.locate, make_corpus(TEXT, server.serve("/text", TEXT)), "text")
    assert "disk full while writing text.txt" in message and str(cache / "small") in message
    assert "ATTN_CACHE" in message and files_in(cache) == []


def test_a_cache_that_cannot_be_written(make_corpus, server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ATTN_CACHE", str(tmp_path / "file"))
    message = refusal(NotWritable, download.locate, make_corpus(TEXT, server.serve("/text", TEXT)), "text")
    assert str(tmp_path / "file") in message and "set ATTN_CACHE to a folder" in message


def test_an_interrupt_leaves_nothing(make_corpus, server, cache, monkeypatch):
    def interrupted(*args):
        yield b"some bytes"
        assert len(files_in(cache)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer, "_chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.locate(make_corpus(TEXT, server.serve("/text", TEXT)), "text")
    assert files_in(cache) == []


def test_leftovers_of_a_killed_process_are_removed(make_corpus, server, cache):
    put(cache, b"half", "small/.text.txt.0123abcd.part")
    other = put(cache, b"half", "small/.other.txt.0123abcd.part")
    path = download.locate(make_corpus(TEXT, server.serve("/text", TEXT)), "text")
    assert files_in(cache) == sorted([path, other])


# --- several processes ---

LOCATE = """
import json, sys
from attn.data import download, registry
print(download.locate(registry.parse(json.loads(sys.argv[1]))["small"], "text"))
"""


def start(make_table, *urls):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(registry.__file__).parents[2]), *sys.path])}
    command = [sys.executable, "-c", LOCATE, json.dumps(make_table(TEXT, *urls))]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process):
    """Wait until `condition()` holds; fail at once if the process ends before, with what it said."""
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def test_of_two_processes_the_second_waits_and_reuses(make_table, server, cache):
    started, go_on = threading.Event(), threading.Event()

    def hold():
        started.set()
        go_on.wait(60)

    url = server.serve("/text", TEXT, before_rest=hold)
    with start(make_table, url) as first:
        wait_for(started.is_set, first)
        with start(make_table, url) as second:
            waiting = second.stderr.readline()
            go_on.set()
            paths = [process.communicate(timeout=60)[0].strip() for process in (first, second)]
    assert "another process is fetching small/text.txt: waiting for it" in waiting
    assert paths == [str(cache / "small/text.txt")] * 2
    assert (first.returncode, second.returncode, server.hits["/text"]) == (0, 0, 1)
    assert files_in(cache) == [cache / "small/text.txt"]


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
def test_a_process_stopped_on_the_way_can_be_followed_by_another(
    make_corpus, make_table, server, cache, kill
):
    go_on = threading.Event()
    url = server.serve("/text", TEXT, before_rest=lambda: go_on.wait(60))
    with start(make_table, url) as process:
        wait_for(lambda: files_in(cache), process)
        assert [path.suffix for path in files_in(cache)] == [".part"]
        process.send_signal(kill)
        process.communicate(timeout=60)
    go_on.set()
    assert process.returncode != 0
    assert len(files_in(cache)) == (0 if kill == signal.SIGINT else 1)
    server.serve("/text", TEXT)
    path = download.locate(make_corpus(TEXT, url), "text")
    assert files_in(cache) == [path]


# --- what the command line shows ---


def test_fetch_returns_each_stored_file_once(make_corpus, server, cache):
    url = server.serve("/a.zip", TEXT)
    corpus = make_corpus(TEXT, url, path="small/a.zip", texts={"one": "1.txt", "two": "2.txt"})
    assert download.fetch(corpus) == [cache / "small/a.zip"]
    assert download.fetch(corpus, ["two"]) == [cache / "small/a.zip"]
    assert server.hits["/a.zip"] == 1


def test_fetch_gets_what_it_can_before_it_complains(make_table, server, cache):
    entry = make_table(None, path="small/unserved.txt")
    entry["small"]["files"][0].update(id="unserved")
    entry["small"]["files"] += make_table(TEXT, server.serve("/text", TEXT))["small"]["files"]
    corpus = registry.parse(entry)["small"]
    assert "small/unserved.txt" in refusal(FileMissing, download.fetch, corpus)
    assert files_in(cache) == [cache / "small/text.txt"]


def test_describe_says_where_files_are(make_corpus, server, mirror, cache):
    corpus = make_corpus(TEXT, server.serve("/text", TEXT))
    (report,) = download.describe(corpus)
    assert (report.id, report.where, report.size_text) == ("small", "absent", "207.0 KiB")
    put(cache)
    assert download.describe(corpus)[0].where == "cache"
    put(mirror)
    assert download.describe(corpus)[0].where == "ATTN_DATA"
    assert server.hits.total() == 0


def test_describe_counts_what_is_partly_there(mirror):
    put(mirror, b"", "multi30k/train.en.gz")
    (report,) = download.describe("multi30k")
    assert (report.where, report.n_files, report.n_unknown) == ("ATTN_DATA 1 of 15", 15, 0)


def test_describe_covers_the_registry(mirror):
    reports = {report.id: report for report in download.describe()}
    assert list(reports) == list(registry.corpora())
    assert (reports["python-stdlib"].where, reports["python-stdlib"].size_text) == ("built in", "varies")
    assert reports["wmt14-en-de"].size_text.startswith("over 1.5 GiB")
    assert reports["enwik8"].size_text == "34.8 MiB"
    with pytest.raises(UnknownCorpus):
        download.describe("enwik9")


def test_verify_tells_ok_wrong_and_absent(make_corpus, mirror):
    corpus = make_corpus(TEXT)
    (report,) = download.verify(corpus)
    assert (report.path, report.status, report.sha256) == ("small/text.txt", "absent", None)
    assert "ATTN_DATA" in report.message
    path = put(mirror)
    assert download.verify(corpus) == [download.FileReport("small/text.txt", "ok", "ATTN_DATA", SHA256)]
    # Same size and time: only reading it afresh can tell.
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(OTHER)
    os.utime(path, ns=times)
    (report,) = download.verify(corpus)
    assert (report.status, report.where) == ("wrong", "ATTN_DATA") and SHA256 in report.message


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="every file is readable here")
def test_an_unreadable_file_is_named(make_corpus, mirror):
    path = put(mirror)
    path.chmod(0)
    assert str(path) in refusal(UnreadableFile, download.locate, make_corpus(TEXT), "text")


def test_a_failing_disk_is_named(make_corpus, mirror, monkeypatch):
    def fail(*args):
        raise OSError(errno.EIO, "Input/output error")

    path = put(mirror)
    monkeypatch.setattr(download, "_remembered_digest", fail)
    message = refusal(UnreadableFile, download.locate, make_corpus(TEXT), "text")
    assert f"{path} cannot be read (Input/output error): check the disk" in message


def test_checksums_name_the_files_used(make_corpus, mirror):
    put(mirror)
    assert download.checksums(make_corpus(TEXT), ["text"]) == {"small/text.txt": SHA256}
    message = refusal(FileMissing, download.checksums, "enwik8", download=False)
    assert "enwik8/enwik8.zip" in message
