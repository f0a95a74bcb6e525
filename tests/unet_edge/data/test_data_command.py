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
    assert "channels  3 (colour), 8 bits" in result.stdout
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
    assert report["classes"][1]["ignored"]
    assert (report["classes"][1]["value"], report["classes"][1]["pixels"]) == (1, 288)
    assert report["split"] == {"train": 2, "val": 1, "is": "10 % of single images at random, seed 0"}
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


def test_suspicions_are_told_and_strict_counts_them(data_set):
    folders = data_set(4)  # four times the same picture
    result = check(folders)
    assert result.exit_code == 0, result.output
    assert "problems  none" in result.stdout
    assert "suspicions 2" in result.stdout
    assert "- leak: 1 of 1 validation images are nearly the same picture" in result.stdout
    assert check(folders, "--strict").exit_code == 1
    report = json.loads(check(folders, "--json").stdout)
    assert [suspicion["kind"] for suspicion in report["suspicions"]] == ["leak", "duplicate"]
    assert len(report["suspicions"][0]["twins"]) == 3


def test_a_page_and_a_sheet(data_set, tmp_path):
    page, sheet = tmp_path / "page.html", tmp_path / "sheet.png"
    result = check(data_set(4), "--report", page, "--sheet", sheet)
    assert result.exit_code == 0, result.output
    assert "4 pairs in" in page.read_text(encoding="utf-8")
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_the_split_of_a_run(data_set, tmp_path):
    from unet_edge.data.pairing import pair_files
    from unet_edge.data.split import Split
    from unet_edge_runtime.files import write_json

    pairs, _ = pair_files(*data_set(5))
    write_json(tmp_path / "run" / "split.json", Split(pairs[:3], pairs[3:]).to_dict())
    trained = {"data": {"ignore": 255, "has_background": False, "max_classes": 9}, "network": {"scale": 0.125}}
    write_json(tmp_path / "run" / "config.json", trained)
    result = run("check", "--run", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "3 train, 2 validate" in result.stdout
    assert "2 of 2 validation images" in result.stdout
    facts = json.loads(run("check", "--run", tmp_path / "run", "--json").stdout)
    assert facts["scale"] == 0.125, "as the run was trained"
    assert run("check", "--run", tmp_path / "run", "--group-by", "x").exit_code == 2, "the run has divided them"
    pairs[4].mask.unlink()
    result = run("check", "--run", tmp_path / "run")
    assert result.exit_code == 1
    assert "no longer there" in result.output
    assert run("check", "--run", tmp_path).exit_code == 1  # no run


def test_a_folder_of_validation_images(data_set, tmp_path, save, photo, two_classes):
    folders = data_set(5)
    val = tmp_path / "val", tmp_path / "val masks"
    for folder in val:
        folder.mkdir()
    save(val[0] / "a0.png", 255 - photo())  # the same name, another picture
    save(val[1] / "a0.png", two_classes())
    options = ["--val-images", val[0], "--val-masks", val[1]]
    result = check(folders, *options)
    assert result.exit_code == 0, result.output
    assert "5 train, 1 validate" in result.stdout
    assert "leak" not in result.stdout
    save(val[0] / "a0.png", photo())
    assert "leak: 1 of 1 validation images" in check(folders, *options).stdout
    save(val[1] / "a0.png", two_classes(7))
    result = check(folders, *options)
    assert result.exit_code == 1
    assert "holds 7, which is no class" in result.stdout


def test_no_split_is_looked_at_where_none_is_wanted(data_set):
    result = check(data_set(4), "--validation", "0")
    assert "leak" not in result.stdout
    assert "duplicate: 3 images" in result.stdout


def test_what_was_found_is_remembered(data_set, monkeypatch):
    from unet_edge.data.doctor import look

    folders = data_set(4)
    first = check(folders).stdout
    monkeypatch.setattr(look, "_look_at_image", lambda path: pytest.fail("looked again"))
    assert check(folders).stdout == first


def test_usage_errors(tmp_path):
    assert run("check", "--images", tmp_path, "--masks", tmp_path, "--run", tmp_path).exit_code == 2
    assert run("check", "--images", tmp_path, "--masks", tmp_path, "--val-images", tmp_path).exit_code == 2
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


def test_the_prepared_images_can_be_deleted(tmp_path, monkeypatch):
    monkeypatch.setenv("UNET_EDGE_CACHE", str(tmp_path))
    entry = tmp_path / "prepared" / f"{64 * 'a'}.npy"
    entry.parent.mkdir(parents=True)
    entry.write_bytes(bytes(3_000_000))
    result = CliRunner().invoke(main, ["data", "clear-cache"])
    assert result.exit_code == 0, result.output
    assert "3 MB freed" in result.output
    assert not entry.exists()
