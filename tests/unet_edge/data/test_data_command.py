from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from unet_edge.cli import main
from unet_edge.cli.values import MaskValueType


def run(*arguments):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


def check(folders, *more):
    return run("check", "--images", folders[0], "--masks", folders[1], *more)


def test_check_of_a_clean_data_set(data_set):
    result = check(data_set(3))
    assert result.exit_code == 0, result.output
    assert "pairs     3" in result.stdout
    assert "12x16 (3)" in result.stdout
    assert "channels  3 (colour)" in result.stdout
    assert "50.00% of pixels" in result.stdout
    assert "problems  none" in result.stdout


def test_check_prints_all_problems(data_set, save, two_classes, photo):
    folders = data_set(30)
    for i in range(25):
        save(folders[1] / f"a{i}.png", two_classes(1, 6, 8))
    save(folders[0] / "lonely.png", photo())
    result = check(folders)
    assert result.exit_code == 1
    assert "problems  26" in result.stdout
    assert result.stdout.count("is 6x8") == 25
    assert "lonely.png: has no mask" in result.stdout
    assert "Traceback" not in result.output


def test_check_as_json(data_set):
    result = check(data_set(3), "--ignore", "1", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1  # one value is left
    assert report["pairs"] == 3
    assert report["sizes"] == [{"height": 12, "width": 16, "images": 3}]
    assert report["classes"][1] == {"value": 1, "pixels": 288, "share": 0.5, "ignored": True}
    assert "nothing to learn" in report["problems"][0]


def test_check_of_empty_folders(folders):
    result = check(folders)
    assert result.exit_code == 1
    assert "holds no image file" in result.stdout


def test_check_with_a_suffix_in_one_folder(tmp_path, save, photo, two_classes):
    folder = tmp_path / "all"
    folder.mkdir()
    save(folder / "a.png", photo())
    save(folder / "a_mask.png", two_classes())
    for more in ([], ["--mask-suffix", "_mask"]):
        result = check((folder, folder), *more)
        assert result.exit_code == 0, result.output
        assert "pairs     1" in result.stdout


def test_usage_errors(tmp_path):
    assert run("check", "--images", tmp_path).exit_code == 2
    assert run("check", "--images", tmp_path / "gone", "--masks", tmp_path).exit_code == 2


def test_sample_prints_the_train_command(tmp_path, monkeypatch):
    from unet_edge.data import sample

    folder = tmp_path / "my sample"
    monkeypatch.setattr(sample, "make_brain_sample", lambda output, progress: (output / "images", output / "masks"))
    result = run("sample", "-o", folder)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(folder / "images"), str(folder / "masks")]
    assert f"unet-edge train --images '{folder / 'images'}'" in result.stderr
    assert f"--val-list '{folder / 'val.txt'}'" in result.stderr


def test_sample_without_nilearn(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("sample", "-o", tmp_path / "sample")
    assert result.exit_code == 1
    assert "pip install --no-deps nilearn" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("65535", 65535), ("255,0,128", (255, 0, 128)), ("1, 2, 3", (1, 2, 3))]
)
def test_mask_values_on_the_command_line(text, value):
    assert MaskValueType().convert(text, None, None) == value


@pytest.mark.parametrize("text", ["", "red", "-1", "65536", "1,2", "1,2,256", "1,2,x", "1,2,3,4", "²", "1.5"])
def test_what_is_no_mask_value(text):
    with pytest.raises(click.UsageError, match="is no mask value: write a number"):
        MaskValueType().convert(text, None, None)


def test_checking_data_never_imports_torch(data_set):
    images, masks = data_set(1)
    code = (
        "import sys\nfrom unet_edge.cli import main\n"
        f"main(['data', 'check', '--images', {str(images)!r}, '--masks', {str(masks)!r}], standalone_mode=False)\n"
        "assert not {'torch', 'onnxruntime', 'coremltools'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
