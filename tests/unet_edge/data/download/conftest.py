"""A web server in a thread that can misbehave, and small archives of the public data sets' layout."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image


class Server:
    """Files by path, and how they are served.

    Attributes:
        files: content by path.
        cut: bytes after which the next answers end too early, one each.
        ranges: whether Range is understood.
        statuses: codes of the next answers that are refusals.
        redirects: path -> address.
        seen: (path, headers) of every request.
    """

    def __init__(self):
        self.files, self.cut, self.ranges, self.statuses, self.redirects, self.seen = {}, [], True, [], {}, []
        self.tag = lambda content: f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.answer(self)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request):
        self.seen.append((request.path, dict(request.headers)))
        request.close_connection = True
        if self.statuses:
            return self.head(request, self.statuses.pop(0), {"Content-Length": "0"})
        if request.path in self.redirects:
            return self.head(request, 302, {"Location": self.redirects[request.path], "Content-Length": "0"})
        if request.path not in self.files:
            return self.head(request, 404, {"Content-Length": "0"})
        content, start, status = self.files[request.path], 0, 200
        headers = {"ETag": self.tag(content)}
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if asked and self.ranges and request.headers.get("If-Range") == self.tag(content):
            start, status = int(asked[1]), 206
            if start >= len(content):
                return self.head(request, 416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self.head(request, status, {**headers, "Content-Length": str(len(body))})
        request.wfile.write(body[: self.cut.pop(0)] if self.cut else body)

    def head(self, request, status, headers):
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def encoded(array, format="PNG"):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format)
    return stream.getvalue()


@pytest.fixture
def make_zip():
    """make_zip({name: content}) -> bytes."""

    def make(files):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return stream.getvalue()

    return make


@pytest.fixture
def make_tar():
    """make_tar({name: content or TarInfo}) -> bytes of a tar.gz."""

    def make(files):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, content in files.items():
                info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
                if isinstance(content, bytes):
                    info.size = len(content)
                archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
        return stream.getvalue()

    return make


@pytest.fixture
def pets(make_tar):
    """The archives of Oxford-IIIT Pet with four animals; one photo has no trimap, hidden files lie about."""
    rng = np.random.default_rng(0)
    photos, maps = {}, {}
    for name in ("Abyssinian_1", "Abyssinian_2", "beagle_1", "beagle_2"):
        photos[f"images/{name}.jpg"] = encoded(rng.integers(0, 255, (20, 30, 3)).astype(np.uint8), "JPEG")
        trimap = np.full((20, 30), 2, np.uint8)
        trimap[5:15, 5:15], trimap[4, 5:15] = 1, 3
        maps[f"annotations/trimaps/{name}.png"] = encoded(trimap)
    photos["images/lonely_1.jpg"] = photos["images/beagle_1.jpg"]
    photos["images/beagle_1.mat"] = b"matlab"
    maps["annotations/trimaps/._beagle_1.png"] = b"resource fork"
    maps["annotations/test.txt"] = b"beagle_1 5 2 1\nAbyssinian_2 1 1 1\nlonely_1 1 1 1\n"
    return {"images.tar.gz": make_tar(photos), "annotations.tar.gz": make_tar(maps)}


@pytest.fixture
def nuclei(make_zip):
    """stage1_train.zip with six images of two nuclei each."""
    files = {}
    for number in range(6):
        key = f"{number:02x}" * 8
        one, other = np.zeros((16, 24), np.uint8), np.zeros((16, 24), np.uint8)
        one[2:5, 2:6], other[8:12, 10:20] = 255, 255
        files[f"{key}/images/{key}.png"] = encoded(np.full((16, 24, 4), number, np.uint8))
        files[f"{key}/masks/a.png"], files[f"{key}/masks/b.png"] = encoded(one), encoded(other)
    return {"stage1_train.zip": make_zip(files)}


@pytest.fixture
def cars(make_zip):
    """train.zip and train_masks.zip with six cars of two views each."""
    photos, masks = {}, {}
    for car in "abcdef":
        for view in ("01", "02"):
            photos[f"train/{car}0_{view}.jpg"] = encoded(np.full((16, 24, 3), 90, np.uint8), "JPEG")
            mask = np.zeros((16, 24), np.uint8)
            mask[4:12, 4:20] = 1
            masks[f"train_masks/{car}0_{view}_mask.gif"] = encoded(mask, "GIF")
    return {"train.zip": make_zip(photos), "train_masks.zip": make_zip(masks)}
