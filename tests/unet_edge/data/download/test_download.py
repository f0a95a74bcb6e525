from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from unet_edge.cli import main
from unet_edge.data.checks import prepare
from unet_edge.data.download import download as module
from unet_edge.data.download.catalogue import CATALOGUE
from unet_edge.data.download.download import download
from unet_edge.data.split import split_pairs
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.mask import read_mask


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """No account of the machine's user."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "kaggle"))


@pytest.fixture
def serve(server, monkeypatch):
    """serve(name, archives): puts archives on the server, and their true checksums where the catalogue has some."""

    def put(name, archives):
        server.files.update({f"/{file}": content for file, content in archives.items()})
        known = [
            replace(
                archive, digest="md5:" + hashlib.md5(archives[archive.file]).hexdigest() if archive.digest else None
            )
            for archive in CATALOGUE[name].archives
        ]
        monkeypatch.setitem(CATALOGUE, name, replace(CATALOGUE[name], archives=tuple(known)))
        return server.address

    return put


def pairs_of(folder, ignore=None):
    pairs, scan = prepare(folder / "images", folder / "masks", ignore=ignore)
    return [pair.name for pair in pairs], scan, split_pairs(pairs, val_list=folder / "val.txt")


def names(pairs):
    return [pair.name for pair in pairs]


def test_pets(serve, pets, tmp_path):
    said = []
    folder = tmp_path / "pets"
    download("oxford-pet", folder, address=serve("oxford-pet", pets), say=said.append)
    found, scan, split = pairs_of(folder, ignore=255)
    assert found == ["Abyssinian_1", "Abyssinian_2", "beagle_1", "beagle_2"]
    assert scan.counts == {0: 4 * 490, 1: 4 * 100, 255: 4 * 10}  # 2, 1 and 3 in the trimaps
    assert names(split.val) == ["Abyssinian_2", "beagle_1"]
    assert "CC BY-SA 4.0" in said[1]
    readme = (folder / "README.md").read_text()
    assert "CC BY-SA 4.0" in readme
    assert "md5 " in readme
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "images", "masks", "source.json", "val.txt"]


def test_nuclei(serve, nuclei, tmp_path):
    folder = tmp_path / "nuclei"
    download("dsb2018", folder, address=serve("dsb2018", nuclei))
    found, scan, split = pairs_of(folder)
    assert len(found) == 6
    assert scan.counts == {0: 6 * (384 - 52), 255: 6 * 52}  # both nuclei in one mask
    assert names(split.val) == [found[0], found[5]]
    record = json.loads((folder / "source.json").read_text())
    assert record["archives"][0]["sha256"] == hashlib.sha256(nuclei["stage1_train.zip"]).hexdigest()
    assert "no checksum" in record["archives"][0]["checked"]


def test_cars_with_an_account(serve, cars, server, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", "key")
    folder = tmp_path / "cars"
    download("carvana", folder, address=serve("carvana", cars))
    found, _, split = pairs_of(folder)
    assert len(found) == 12
    assert names(split.val) == ["a0_01", "a0_02", "f0_01", "f0_02"]  # whole cars
    assert {headers["Authorization"] for _, headers in server.seen} == {"Basic bWU6a2V5"}


def test_the_account_in_a_file(serve, cars, server, tmp_path):
    (tmp_path / "kaggle").mkdir()
    (tmp_path / "kaggle" / "kaggle.json").write_text('{"username": "me", "key": "key"}')
    download("carvana", tmp_path / "cars", address=serve("carvana", cars))
    assert server.seen[0][1]["Authorization"] == "Basic bWU6a2V5"


def test_cars_without_an_account(server, tmp_path):
    folder = tmp_path / "cars"
    with pytest.raises(InputError, match=r"set KAGGLE_USERNAME and KAGGLE_KEY .* or .* with --from"):
        download("carvana", folder, address=server.address)
    assert server.seen == []


def test_cars_downloaded_by_hand(cars, tmp_path):
    for file, content in cars.items():
        (tmp_path / file).write_bytes(content)
    words = ["data", "download", "carvana", "-o", str(tmp_path / "cars")]
    for file in cars:
        words += ["--from", str(tmp_path / file)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(tmp_path / "cars" / "images"), str(tmp_path / "cars" / "masks")]
    assert "licence: none stated" in result.stderr
    assert "--val-list" in result.stderr
    assert len(pairs_of(tmp_path / "cars")[0]) == 12
    assert (tmp_path / "train.zip").exists()  # the user's own file


def test_a_second_download_does_nothing(serve, nuclei, server, tmp_path):
    address = serve("dsb2018", nuclei)
    folder = tmp_path / "nuclei"
    download("dsb2018", folder, address=address)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    download("dsb2018", folder, address=address)
    assert len(server.seen) == 1
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times


def test_an_interruption_between_archives_and_while_unpacking(serve, pets, server, tmp_path):
    address = serve("oxford-pet", pets)
    folder = tmp_path / "pets"
    annotations = server.files.pop("/annotations.tar.gz")
    with pytest.raises(InputError, match="404"):
        download("oxford-pet", folder, address=address)
    server.files["/annotations.tar.gz"] = annotations

    def interrupted(items, label, length):
        for number, item in enumerate(items):
            if label == "Unpacking" and number == 2:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        download("oxford-pet", folder, address=address, progress=interrupted)
    assert not (folder / "images").exists()
    download("oxford-pet", folder, address=address)
    assert len(pairs_of(folder, 255)[0]) == 4
    assert [path for path, _ in server.seen].count("/images.tar.gz") == 1
    assert not (folder / ".making").exists()


def test_a_wrong_archive_is_refused(serve, pets, server, tmp_path):
    address = serve("oxford-pet", pets)
    server.files["/images.tar.gz"] = server.files["/images.tar.gz"][:-1] + b"x"
    with pytest.raises(InputError, match=r"has md5 .*, expected"):
        download("oxford-pet", tmp_path / "pets", address=address)
    assert not (tmp_path / "pets" / "images").exists()


def test_an_archive_of_something_else(serve, make_zip, tmp_path):
    address = serve("dsb2018", {"stage1_train.zip": make_zip({"hello.txt": b"hello"})})
    with pytest.raises(InputError, match="holds no pair of dsb2018"):
        download("dsb2018", tmp_path / "nuclei", address=address)


def test_hostile_names_inside_write_nothing_outside(serve, make_zip, tmp_path):
    address = serve("dsb2018", {"stage1_train.zip": make_zip({"../../evil/images/evil.png": b"x"})})
    with pytest.raises(InputError, match="leads out of its folder"):
        download("dsb2018", tmp_path / "a" / "nuclei", address=address)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="holds something else than dsb2018"):
        download("dsb2018", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_too_little_room(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(InputError, match="needs 400 MiB"):
        download("dsb2018", tmp_path / "nuclei", address=server.address)


def test_the_list_of_data_sets():
    helped = CliRunner().invoke(main, ["data", "download", "--help"]).output
    assert all(name in helped for name in CATALOGUE)
    result = CliRunner().invoke(main, ["data", "download", "--list"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[::2]] == ["oxford-pet", "dsb2018", "carvana"]
    assert result.stdout.count("licence:") == 3


def test_usage():
    assert CliRunner().invoke(main, ["data", "download"]).exit_code == 2
    result = CliRunner().invoke(main, ["data", "download", "imagenet"])
    assert result.exit_code == 1
    assert "no data set is called 'imagenet': there are oxford-pet, dsb2018, carvana" in result.output


def test_every_address_is_encrypted_and_every_licence_said():
    for entry in CATALOGUE.values():
        assert all(archive.address.startswith("https://") for archive in entry.archives)
        assert entry.licence
        assert entry.citation


def test_a_mask_of_the_pets_is_what_the_trimap_says(serve, pets, tmp_path):
    download("oxford-pet", tmp_path / "pets", address=serve("oxford-pet", pets))
    mask = read_mask(tmp_path / "pets" / "masks" / "beagle_2.png")
    assert mask[10, 10] == 1
    assert mask[0, 0] == 0
    assert mask[4, 10] == 255
    with Image.open(tmp_path / "pets" / "images" / "beagle_2.jpg") as picture:
        assert np.asarray(picture).shape == (20, 30, 3)
