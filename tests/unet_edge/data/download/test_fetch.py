from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from unet_edge.data.download import fetch as module
from unet_edge.data.download.fetch import fetch
from unet_edge_runtime.errors import InputError

CONTENT = np.random.default_rng(0).bytes(3 << 20)
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def get(server, tmp_path):
    """get(**options): fetches /file from the server into file."""
    server.files["/file"] = CONTENT

    def run(path="/file", **options):
        options = {"limit": 4 << 20, "pause": 0, **options}
        return fetch(server.address + path, tmp_path / "into" / "file", **options)

    return run


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "into").iterdir())


def test_a_file_arrives_whole(get, server, tmp_path):
    assert get(digest=MD5).read_bytes() == CONTENT
    assert left(tmp_path) == ["file"]
    get(digest=MD5)
    assert len(server.seen) == 1  # it is there


def test_a_cut_connection_is_continued(get, server, tmp_path):
    server.cut = [1 << 20, 1000, 1 << 20]
    assert get(digest=MD5).read_bytes() == CONTENT
    asked = [headers.get("Range") for _, headers in server.seen]
    assert asked == [None, "bytes=1048576-", "bytes=1049576-", f"bytes={(2 << 20) + 1000}-"]
    assert left(tmp_path) == ["file"]


def test_an_interrupted_download_is_continued_later(get, server, tmp_path):
    def interrupted(blocks, label, length):
        yield next(iter(blocks))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(progress=interrupted)
    assert left(tmp_path) == ["file.part", "file.part.json"]
    assert get(digest=MD5).read_bytes() == CONTENT
    assert server.seen[1][1]["Range"] == "bytes=1048576-"


def test_a_file_that_changed_meanwhile_starts_again(get, server):
    server.cut = [1 << 20]
    other = CONTENT[::-1]

    original = server.answer

    def change(request):
        original(request)
        server.files["/file"] = other

    server.answer = change
    assert get().read_bytes() == other


def test_a_server_without_ranges_starts_again(get, server):
    server.ranges, server.cut = False, [2 << 20]
    assert get(digest=MD5).read_bytes() == CONTENT
    assert len(server.seen) == 2


def test_a_server_without_ranges_that_breaks_off_here_and_there_is_given_up(get, server):
    server.ranges, server.cut = False, [1000, 2000] * 50
    with pytest.raises(InputError, match="the connection ended after 1000 of 3145728 bytes: try again later"):
        get()
    assert len(server.seen) == 2 + module.ATTEMPTS


def test_a_whole_part_without_its_end_is_taken(get, server, tmp_path):
    folder = tmp_path / "into"
    folder.mkdir()
    (folder / "file.part").write_bytes(CONTENT)
    validator = server.tag(CONTENT)
    (folder / "file.part.json").write_text(json.dumps({"url": f"{server.address}/file", "validator": validator}))
    assert get(digest=MD5).read_bytes() == CONTENT
    assert len(server.seen) == 1


def test_a_part_of_unknown_origin_is_not_continued(get, tmp_path):
    folder = tmp_path / "into"
    folder.mkdir()
    (folder / "file.part").write_bytes(b"something else")
    assert get(digest=MD5).read_bytes() == CONTENT


def test_a_wrong_file_is_thrown_away(get, tmp_path):
    with pytest.raises(InputError, match="expected 0123: it is damaged or another file"):
        get(digest="md5:0123")
    assert left(tmp_path) == []


def test_a_server_that_is_busy_for_a_moment(get, server):
    server.statuses = [503, 429]
    assert get(digest=MD5).read_bytes() == CONTENT


def test_a_server_that_stays_busy(get, server):
    server.statuses = [503] * 99
    with pytest.raises(InputError, match=r"the server answers 503 .*: try again later"):
        get()
    assert len(server.seen) == module.ATTEMPTS


@pytest.mark.parametrize(
    ("status", "words"), [(404, "answers 404"), (401, "check your user name"), (403, "accept the rules")]
)
def test_refusals_say_what_to_do(get, server, status, words):
    server.statuses = [status]
    with pytest.raises(InputError, match=words):
        get()
    assert len(server.seen) == 1


def test_more_than_expected_is_not_downloaded(get, server):
    with pytest.raises(InputError, match="more than the 1000 expected"):
        get(limit=1000)


def test_an_endless_answer_is_stopped(get, server, monkeypatch):
    """A server that does not say how much comes."""
    original = server.head
    server.head = lambda request, status, headers: original(
        request, status, {k: v for k, v in headers.items() if k != "Content-Length"}
    )
    with pytest.raises(InputError, match="sends more than the 1000000 bytes"):
        get(limit=1_000_000)


def test_nobody_there(tmp_path):
    with pytest.raises(InputError, match="cannot be reached"):
        fetch("http://127.0.0.1:9/file", tmp_path / "file", limit=1000, pause=0)


@pytest.mark.parametrize("url", ["http://example.org/file", "ftp://example.org/file", "file:///etc/passwd"])
def test_only_encrypted_addresses(tmp_path, url):
    with pytest.raises(InputError, match="is not an https address"):
        fetch(url, tmp_path / "file", limit=1000)


def test_redirects_to_elsewhere_are_refused(get, server):
    server.redirects["/moved"] = "http://example.org/file"
    with pytest.raises(InputError, match="is not an https address"):
        get("/moved")


def test_a_password_is_not_handed_on(get, server):
    server.redirects["/moved"] = f"{server.address}/file"
    get("/moved", headers={"Authorization": "Basic secret"})
    assert [headers.get("Authorization") for _, headers in server.seen] == ["Basic secret", None]


def test_a_full_disk_is_told_first(get, server, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(InputError, match="1 MiB are free, 3 MiB more are needed"):
        get()
