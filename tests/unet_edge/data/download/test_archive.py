from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

from unet_edge.data.download.archive import members
from unet_edge_runtime.errors import InputError


@pytest.fixture(params=["zip", "tar"])
def archive(request, tmp_path, make_zip, make_tar):
    """archive({name: content}) -> path, of both kinds."""

    def make(files):
        path = tmp_path / ("archive.zip" if request.param == "zip" else "archive.tar.gz")
        path.write_bytes({"zip": make_zip, "tar": make_tar}[request.param](files))
        return path

    return make


def test_files_come_out(archive):
    files = {"a/1.txt": b"one", "a/2.txt": b"two", "b.txt": b""}
    assert dict(members(archive(files))) == files


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/passwd", "..\\out", "C:/out", "\\\\host\\out"])
def test_names_that_lead_out_are_refused(archive, name):
    with pytest.raises(InputError, match="leads out of its folder"):
        list(members(archive({"fine": b"1", name: b"2"})))


def test_bombs_are_counted_while_they_unpack(archive):
    with pytest.raises(InputError, match="unpacks to more than 1000 bytes"):
        list(members(archive({"bomb": bytes(1 << 20)}), largest=1000))
    with pytest.raises(InputError, match="unpacks to more than 3000 bytes"):
        list(members(archive({str(n): bytes(900) for n in range(9)}), total=3000))
    with pytest.raises(InputError, match="more than 5 files"):
        list(members(archive({str(n): b"" for n in range(9)}), count=5))


def test_damage_is_told(archive):
    path = archive({str(n): bytes(range(256)) * 40 for n in range(20)})
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError, match="damaged archive"):
        list(members(path))


def test_a_size_that_is_a_lie(tmp_path, make_zip):
    """The header says 10 bytes, the content has a million."""
    content = bytearray(make_zip({"bomb": bytes(1 << 20)}))
    for place in (content.find(b"PK\x03\x04") + 22, content.find(b"PK\x01\x02") + 24):
        content[place : place + 4] = (10).to_bytes(4, "little")
    path = tmp_path / "lie.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged archive"):
        list(members(path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_are_refused(tmp_path, make_tar, kind):
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "/etc/passwd"
    path = tmp_path / "a.tar.gz"
    path.write_bytes(make_tar({"link": info}))
    with pytest.raises(InputError, match="link or device"):
        list(members(path))


def test_links_of_a_zip_are_refused(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    path = tmp_path / "a.zip"
    path.write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="link or device"):
        list(members(path))
