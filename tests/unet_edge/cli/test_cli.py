"""The commands as a user types them: in one process for speed, in another where start-up is what counts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from unet_edge.cli import COMMANDS, main

SEED_FLAGS = {
    "train": [
        "--epochs", "-e", "--batch-size", "-b", "--learning-rate", "-l", "--load", "-f", "--scale", "-s",
        "--validation", "-v", "--amp", "--bilinear", "--classes", "-c",
    ],
    "predict": [
        "--model", "-m", "--input", "-i", "--output", "-o", "--viz", "-v", "--no-save", "-n", "--mask-threshold",
        "-t", "--scale", "-s",
    ],
}  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="unet-edge")


@pytest.fixture(scope="module")
def photos(trained: Path) -> Path:
    return trained.parent / "data" / "images"


@pytest.fixture(scope="module")
def masks(trained: Path) -> Path:
    return trained.parent / "data" / "masks"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage: unet-edge" in result.output


@pytest.mark.parametrize(("command", "flag"), [(c, f) for c, flags in SEED_FLAGS.items() for f in flags])
def test_flags_of_the_seed_are_known(command, flag):
    assert flag in run(command, "--help").output.replace(",", " ").replace("/", " ").split()


def test_misspelt_command_gets_the_closest_name():
    result = run("exprot")
    assert result.exit_code == 2
    assert "Did you mean 'export'?" in result.output


def test_a_missing_extra_is_one_line(tmp_path):
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom unet_edge.cli import main\n"
        "main(['train', '--images', '.', '--masks', '.', '--out', 'x'], prog_name='unet-edge')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert result.stderr.strip() == "Error: train needs torch: pip install 'unet-edge[train]'"


def test_train_prints_the_best_score_and_what_to_do_next(tmp_path, pairs_folder):
    images, masks = pairs_folder
    out = tmp_path / "run"
    arguments = ["--base-channels", 4, "--depth", 2, "--bilinear", "--scale", 1, "--device", "cpu", "-e", 2, "-b", 4]
    result = run("train", "--images", images, "--masks", masks, "--out", out, *arguments, "--class-names", "a,b,c")
    assert result.exit_code == 0, result.output
    assert "best validation Dice" in result.stdout
    assert f"unet-edge export {out / 'best.pth'}" in result.stderr
    assert "11 images train, 1 validate; 3 classes" in result.stderr
    again = run("train", "--images", images, "--masks", masks, "--out", out, *arguments)
    assert again.exit_code == 1
    assert "already holds a run" in again.output
    more = run("train", "--resume", out, "-e", 3, "--json")
    assert json.loads(more.stdout)["epoch"] in (1, 2, 3)


def test_train_lists_all_problems_before_training(tmp_path, pairs_folder):
    images, masks = pairs_folder
    (images / "photo 00.png").write_bytes(b"not an image")
    (masks / "photo 01_mask.png").unlink()
    Image.new("L", (9, 9)).save(masks / "photo 02_mask.png")
    result = run("train", "--images", images, "--masks", masks, "--out", tmp_path / "run")
    assert result.exit_code == 1
    for name in ("photo 00.png", "photo 01.png", "photo 02_mask.png"):
        assert name in result.output
    assert "3 problems" in result.output
    assert not (tmp_path / "run").exists()


def test_usage_errors_exit_with_two(tmp_path, pairs_folder):
    assert run("train", "--images", pairs_folder[0]).exit_code == 2
    assert run("train", "--resume", tmp_path, "--images", pairs_folder[0]).exit_code == 2
    assert run("train", "--scale", "zero").exit_code == 2
    assert run("evaluate", tmp_path / "missing.pth").exit_code == 2


def test_evaluate_reports_the_contracted_keys(trained, photos, masks):
    result = run("evaluate", trained / "best.pth", "--images", photos, "--masks", masks, "--json")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert {"dice", "iou", "pixel_accuracy", "classes", "images", "backend", "model"} <= scores.keys()
    assert [c["name"] for c in scores["classes"]] == ["ground", "disc", "bar"]
    assert all({"name", "dice", "iou"} <= c.keys() for c in scores["classes"])
    assert scores["images"] == 12
    assert scores["backend"] == "torch"
    assert scores["dice"] == pytest.approx(np.mean([c["dice"] for c in scores["classes"][1:]]))
    everything = run(
        "evaluate", trained / "best.pth", "--images", photos, "--masks", masks, "--json", "--include-background"
    )
    assert json.loads(everything.stdout)["dice"] == pytest.approx(np.mean([c["dice"] for c in scores["classes"]]))
    words = run("evaluate", trained / "best.pth", "--images", photos, "--masks", masks).stdout
    assert "mean without background" in words


def test_evaluate_on_the_runs_own_validation_equals_the_training_score(trained):
    scores = json.loads(run("evaluate", trained / "best.pth", "--run", trained, "--json").stdout)
    best = json.loads(run("inspect", trained / "best.pth", "--json").stdout)["training"]["best"]
    assert scores["dice"] == pytest.approx(best["dice"], abs=1e-4)


def test_evaluate_names_the_mask_with_an_unknown_value(trained, photos, masks, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    Image.new("L", (32, 32), 9).save(tmp_path / "a_mask.png")
    result = run("evaluate", trained / "best.pth", "--images", tmp_path, "--masks", tmp_path)
    assert result.exit_code == 1
    assert "a_mask.png: holds 9" in result.output


def test_predict_writes_the_training_values_at_the_images_size(trained, tmp_path):
    image = tmp_path / "näher [1].v2.png"
    Image.effect_noise((70, 50), 40).convert("RGB").save(image)
    result = run("predict", "-m", trained / "best.pth", image)
    assert result.exit_code == 0, result.output
    mask = Image.open(tmp_path / "näher [1].v2_OUT.png")
    assert mask.size == (70, 50)
    assert set(np.unique(np.asarray(mask))) <= {0, 100, 255}


def test_predict_takes_folders_and_patterns_and_all_pictures(trained, photos, tmp_path):
    result = run(
        "predict", "-m", trained / "best.pth", photos, "-o", tmp_path / "out", "--overlay", "--viz", "--probabilities"
    )
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(names) == 12 * 4
    assert {f"photo 00_{kind}" for kind in ("OUT.png", "OVERLAY.png", "VIZ.png", "PROB.npy")} <= names
    probabilities = np.load(tmp_path / "out" / "photo 00_PROB.npy").astype(np.float32)
    assert probabilities.shape == (3, 48, 64)
    assert np.allclose(probabilities.sum(axis=0), 1, atol=2e-3)
    labels = np.asarray(Image.open(tmp_path / "out" / "photo 00_OUT.png"))
    assert np.array_equal(np.array([0, 100, 255])[probabilities.argmax(axis=0)], labels)
    pattern = run("predict", "-m", trained / "best.pth", photos / "photo 0[12].png", "-o", tmp_path / "two", "--json")
    assert len(json.loads(pattern.stdout)["written"]) == 2


def test_predict_skips_its_own_outputs_and_existing_masks(trained, tmp_path, photos):
    Image.open(photos / "photo 00.png").save(tmp_path / "a.png")
    assert run("predict", "-m", trained / "best.pth", tmp_path, "--overlay").exit_code == 0
    again = json.loads(run("predict", "-m", trained / "best.pth", tmp_path, "--json").stdout)
    assert [entry["input"] for entry in again["written"]] == [str(tmp_path / "a.png")]
    third = json.loads(run("predict", "-m", trained / "best.pth", tmp_path, "--json", "--skip-existing").stdout)
    assert third["written"] == []


def test_one_bad_file_is_reported_and_the_others_are_done(trained, photos, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    Image.open(photos / "photo 00.png").save(tmp_path / "good.png")
    result = run("predict", "-m", trained / "best.pth", tmp_path, tmp_path / "missing.png")
    assert result.exit_code == 1
    assert (tmp_path / "good_OUT.png").exists()
    assert "bad.png: not an image" in result.output
    assert "missing.png: no such file" in result.output
    assert "2 of 3 inputs could not be segmented" in result.output


def test_same_names_never_share_an_output(trained, photos, tmp_path):
    for folder, suffix in (("x", "png"), ("y", "png"), ("x", "bmp")):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.open(photos / "photo 00.png").save(tmp_path / folder / f"a.{suffix}")
    result = run(
        "predict", "-m", trained / "best.pth", tmp_path / "x", tmp_path / "y", "-o", tmp_path / "out", "--json"
    )
    written = [entry["mask"] for entry in json.loads(result.stdout)["written"]]
    assert len(set(written)) == 3
    assert all(Path(path).exists() for path in written)


def test_outputs_can_be_named_one_by_one(trained, photos, tmp_path):
    a, b = photos / "photo 00.png", photos / "photo 01.png"
    result = run(
        "predict", "-m", trained / "best.pth", "-i", a, "-i", b, "-o", tmp_path / "1.png", "-o", tmp_path / "2.png"
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "1.png").exists()
    assert (tmp_path / "2.png").exists()
    wrong = run("predict", "-m", trained / "best.pth", a, b, photos / "photo 02.png", "-o", "1.png", "-o", "2.png")
    assert "2 outputs for 3 inputs" in wrong.output
    jpeg = run("predict", "-m", trained / "best.pth", a, "-o", tmp_path / "mask.jpg")
    assert jpeg.exit_code == 1
    assert "masks are kept exactly by .png" in jpeg.output


def test_no_save_writes_nothing(trained, photos, tmp_path):
    Image.open(photos / "photo 00.png").save(tmp_path / "a.png")
    assert run("predict", "-m", trained / "best.pth", tmp_path / "a.png", "-n").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_threshold_needs_two_classes(trained, photos):
    result = run("predict", "-m", trained / "best.pth", photos / "photo 00.png", "-t", 0.7, "-n")
    assert result.exit_code == 1
    assert "two-class" in result.output


def test_a_checkpoint_on_onnx_is_exported_once(trained, photos, tmp_path):
    model = tmp_path / "model.pth"
    model.write_bytes((trained / "best.pth").read_bytes())
    first = run("predict", "-m", model, photos, "-o", tmp_path / "onnx", "--backend", "onnx")
    assert first.exit_code == 0, first.output
    assert f"exported {tmp_path / 'model.onnx'}" in first.stderr
    stamp = (tmp_path / "model.onnx").stat().st_mtime_ns
    second = run("predict", "-m", model, photos, "-o", tmp_path / "again", "--backend", "onnx")
    assert f"using {tmp_path / 'model.onnx'}" in second.stderr
    assert (tmp_path / "model.onnx").stat().st_mtime_ns == stamp
    run("predict", "-m", model, photos, "-o", tmp_path / "torch")
    for path in (tmp_path / "torch").iterdir():
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(tmp_path / "onnx" / path.name)))


def test_predicting_with_onnx_never_imports_torch(trained, photos, tmp_path):
    model = tmp_path / "model.pth"
    model.write_bytes((trained / "best.pth").read_bytes())
    assert run("export", model, "--format", "onnx").exit_code == 0
    code = (
        "import sys\nfor name in ('torch', 'coremltools', 'onnx'): sys.modules[name] = None\n"
        "from unet_edge.cli import main\nmain(sys.argv[1:], prog_name='unet-edge')"
    )
    for arguments in (
        ["predict", "-m", tmp_path / "model.onnx", photos / "photo 00.png", "-o", tmp_path / "out"],
        ["inspect", tmp_path / "model.onnx"],
    ):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "photo 00_OUT.png").exists()


def test_inspect_shows_classes_network_and_training(trained):
    words = run("inspect", trained / "best.pth").output
    for expected in ("disc", "100", "base_channels", "bilinear", "scale", "recipe default"):
        assert expected in words
    facts = json.loads(run("inspect", trained / "best.pth", "--json").output)
    assert facts["network"]["base_channels"] == 8
    assert facts["spec"]["classes"][1]["name"] == "disc"


def test_a_file_of_another_kind_is_one_line(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    result = run("inspect", tmp_path / "model.bin")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1


def test_an_option_of_another_backend_is_one_line(trained, photos, tmp_path):
    model = tmp_path / "model.pth"
    model.write_bytes((trained / "best.pth").read_bytes())
    assert run("export", model).exit_code == 0
    result = run("predict", "-m", tmp_path / "model.onnx", photos, "--device", "cpu", "-n")
    assert result.exit_code == 1
    assert "backend onnx has no option device" in result.output


def test_a_mask_never_takes_the_place_of_an_image(trained, photos, tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes((photos / "photo 00.png").read_bytes())
    before = image.read_bytes()
    result = run("predict", "-m", trained / "best.pth", image, "-o", image)
    assert result.exit_code == 1
    assert "is an input" in result.output
    assert image.read_bytes() == before
    twice = run("predict", "-m", trained / "best.pth", image, photos / "photo 01.png", "-o", "m.png", "-o", "m.png")
    assert "would get 2 masks" in twice.output


def test_resume_takes_no_option_that_it_would_leave_aside(trained):
    result = run("train", "--resume", trained, "--learning-rate", 5)
    assert result.exit_code == 2
    assert "--learning-rate cannot change" in result.output.replace("\n", " ").replace(
        "-l cannot", "--learning-rate cannot"
    )


def test_floats_of_another_range_are_refused(trained, photos, tmp_path):
    pixels = np.asarray(Image.open(photos / "photo 00.png")).astype(np.float32)
    np.save(tmp_path / "unit.npy", pixels / 255)
    np.save(tmp_path / "full.npy", pixels)
    result = run("predict", "-m", trained / "best.pth", tmp_path)
    assert result.exit_code == 1
    assert "full.npy: float values up to" in result.output
    assert (tmp_path / "unit_OUT.png").exists()


def test_a_run_folder_that_is_a_file_is_one_line(pairs_folder, tmp_path):
    (tmp_path / "file").write_text("x")
    result = run("train", "--images", pairs_folder[0], "--masks", pairs_folder[1], "--out", tmp_path / "file")
    assert result.exit_code == 1
    assert "is a file: give a folder" in result.output


def test_a_model_of_another_kind_is_named(trained, photos, tmp_path):
    (tmp_path / "x.pth").write_bytes(b"ONNX or something")
    result = run("predict", "-m", tmp_path / "x.pth", photos)
    assert "is no PyTorch checkpoint" in result.output
    several = run("predict", "-m", trained / "best.pth", photos, "-o", tmp_path / "one.png")
    assert "names one picture" in several.output
