"""A local web server that answers as told, and a clean environment for every test of attn.data."""

import hashlib
import os
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from attn.data import registry
from tests.data.made_up_words import word_corpus  # noqa: F401

REAL_DATA = os.environ.get("ATTN_DATA")


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that goes away is part of some tests, and no news."""


class Server:
    """Answers each path by a function of the request handler; 404 for other paths; counts the requests."""

    def __init__(self):
        self.answers, self.hits = {}, Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.hits[self.path] += 1
                answer = outer.answers.get(self.path)
                answer(self) if answer else self.send_error(404)

            def log_message(self, *args):
                pass

        self._http = _Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()

    def serve(self, path, content, *, announce=True, sent=None, before_rest=None, **headers):
        """Serve `content` at `path` and return its address.

        `announce`: the Content-Length (True: the right one, None: none). `sent`: bytes after which the
        connection is closed. `before_rest`: called when half of the body has been sent.
        """

        def answer(handler):
            handler.send_response(200)
            if announce is not None:
                handler.send_header("Content-Length", str(len(content) if announce is True else announce))
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            body = content[:sent]
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            if before_rest:
                before_rest()
            handler.wfile.write(body[len(body) // 2 :])

        self.answers[path] = answer
        return self.url + path


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder, no `$ATTN_DATA`, and no proxy between a test and its server."""
    monkeypatch.setenv("ATTN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ATTN_DATA", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """An empty folder that `$ATTN_DATA` names."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("ATTN_DATA", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


@pytest.fixture
def real_data(monkeypatch):
    """The folder of real corpora that `$ATTN_DATA` named when the tests were started."""
    if not REAL_DATA:
        pytest.skip("ATTN_DATA is not set: no real corpora to look at")
    monkeypatch.setenv("ATTN_DATA", REAL_DATA)
    return REAL_DATA


def table(content=None, *urls, path="small/text.txt", **facts):
    """The table of a corpus "small" with one file "text"; size and checksum are those of `content`."""
    known = {"size": "unknown", "sha256": "unknown"}
    if content is not None:
        known = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    file = {"id": "text", "path": path, "urls": list(urls), **known, **facts}
    if "texts" in facts:
        del file["id"]
    about = {"title": "Small", "about": "A text.", "licence": "none", "home": "https://example.org/small"}
    return {"small": {**about, "files": [file]}}


@pytest.fixture
def make_corpus():
    """Builds a corpus as `table`, with `splits` if given."""

    def make(content=None, *urls, splits=None, **facts):
        entry = table(content, *urls, **facts)
        entry["small"]["splits"] = splits or {}
        return registry.parse(entry)["small"]

    return make


@pytest.fixture
def make_table():
    return table
