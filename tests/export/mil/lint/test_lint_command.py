"""`unet-edge lint` as a user meets it, on real and on damaged packages."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from unet_edge.cli.lint import command
from unet_edge_export.mil import Package
from unet_edge_export.mil.lint import RULES, lint
from unet_edge_runtime.errors import ModelFileError


def run(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments)])


def topk(program):
    x = program.input("x\x1b[31m")
    for _ in range(5):
        x = program.op("topk", "fp16", (1, 16, 64, 64), x=x)
    program.output(x)


def resized(program):
    program.output(program.op("upsample_bilinear", "fp16", (1, 1, 64, 64), x=program.input(shape=(1, 1, 32, 32))))


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
@pytest.mark.parametrize("head", ["logits", "probabilities", "classmap"])
def test_what_we_export_has_no_errors_on_any_chip(converted, up, head):
    package = Package.open(converted(up, head=head))
    for chip in ("m1", "m2", "m3", "m4", "m5"):
        assert lint(package, chip).counts["error"] == 0


def test_the_default_export_for_the_m1(converted):
    result = run(converted())
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].endswith("small.mlpackage  checked for m1 (limits measured)")
    assert lines[-1].startswith("0 errors, ")
    assert any("at least" in line and "ms on m1" in line for line in lines)
    assert "(projection, not a measurement)" in result.stdout


def test_an_export_in_fp32_is_not_for_the_neural_engine(converted):
    result = run(converted(precision="fp32"))
    assert result.exit_code == 1
    assert "computes in fp32, on the GPU or the CPU" in result.stdout
    assert "confidence high" in result.stdout


def test_findings_are_grouped_and_explained(build):
    result = run(build(topk).path)
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert "error OP 5 times: topk is native from the M2 on" in text
    assert "at: topk_1, topk_2, topk_3, and 2 more" in text
    assert f"do: {RULES['OP'].remedy}" in text
    assert f"source: {RULES['OP'].source}; confidence medium" in text
    assert result.stdout.splitlines()[-1].startswith("5 errors, ")


def test_another_chip(build):
    result = run(build(topk).path, "--chip", "A15")
    assert result.exit_code == 0
    assert "checked for a15 (limits of the m2, measured there)" in result.stdout


def test_fail_on(build):
    path = build(resized).path
    assert run(path).exit_code == 0
    assert run(path, "--fail-on", "warn").exit_code == 1
    assert run(path, "--fail-on", "warn", "--chip", "m2").exit_code == 0


def test_json_holds_everything(converted):
    path = converted("bilinear")
    result = run(path, "--json", "--fail-on", "warn")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["model"] == str(path)
    assert report["made_by"].startswith("unet-edge ")
    assert report["chip"]["name"] == "m1"
    assert report["chip"]["generation"]["streams"]
    finding = next(each for each in report["findings"] if each["rule"] == "RESIZE")
    assert set(finding) == {
        "rule", "severity", "function", "operation", "kind", "message", "remedy", "source", "confidence"
    }  # fmt: skip
    (function,) = report["functions"]
    total = function["total"]
    assert total["flops"] == 2 * sum(each["macs"] for each in function["operations"])
    assert total["operations"] == len(function["operations"])
    assert len(function["projections"]) == 10
    assert function["projections"][0]["status"] == "projection, not a measurement"


def test_tables_on_request(converted):
    path = converted()
    plain, full = run(path).stdout, run(path, "--operations", "--all-chips").stdout
    assert "kB traffic" not in plain
    assert "kB traffic" in full
    assert " conv_transpose " in full
    assert "aosama" in full
    assert "a18" in full


def test_the_rules_need_no_model():
    result = run("--rules")
    assert result.exit_code == 0
    assert all(f"  {rule} " in result.stdout for rule in RULES)


def test_names_out_of_a_file_cannot_talk_to_the_terminal(build):
    def fill(program):
        program.output(program.op("evil\x1b[31m\n" * 50, "fp16", (1, 1, 64, 64), "a\x07b", x=program.input()))

    result = run(build(fill).path)
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 300


def test_a_file_is_no_package(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no")
    result = run(path)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {path}: no Core ML package: lint reads the folder that ends in .mlpackage\n"


def test_a_folder_is_no_package_either(tmp_path):
    error = run(tmp_path).exception
    assert isinstance(error, ModelFileError)  # which the group of commands prints as one line
    assert "\n" not in str(error)


def test_a_missing_package(tmp_path):
    result = run(tmp_path / "none.mlpackage")
    assert result.exit_code == 2
    assert "no such model file" in result.stderr


def test_an_unknown_chip(build):
    result = run(build(resized).path, "--chip", "m99")
    assert result.exit_code == 2
    assert "choose one of m1, m2" in result.stderr


def test_damaged_packages_are_our_error_or_a_report(converted, tmp_path):
    """Bit flips and cuts in the program of a real package; the lint reads no weights."""
    source = converted()
    path = tmp_path / "damaged.mlpackage"
    shutil.copytree(source, path)
    program = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    whole = np.frombuffer(program.read_bytes(), np.uint8)
    generator = np.random.default_rng(0)
    refused = 0
    for case in range(400):
        content = whole.copy()
        if case % 10 == 0:
            content = content[: generator.integers(len(content))]
        else:
            places = generator.integers(len(content), size=generator.integers(1, 5))
            content[places] ^= (1 << generator.integers(0, 8, len(places))).astype(np.uint8)
        program.write_bytes(content.tobytes())
        try:
            lint(Package.open(path)).to_dict()
        except ModelFileError:
            refused += 1
    assert 0 < refused < 400
