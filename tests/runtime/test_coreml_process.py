"""The child process: it answers, it dies, it hangs, and nothing of it stays."""

from __future__ import annotations

import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tests.mac import compilations, make_fake_package, pretend_mac
from unet_edge_runtime import coreml_process
from unet_edge_runtime.coreml_client import CoreMLProcess
from unet_edge_runtime.errors import BackendError, MissingExtraError, ModelFileError

SIZE = (32, 48)
CALL = {"function": "", "input_name": "image", "output_name": "logits", "image": True}
PIXELS = np.zeros((*SIZE, 3), np.uint8)


@pytest.fixture
def package(small_onnx, make_spec, tmp_path):
    return make_fake_package(tmp_path / "a.mlpackage", small_onnx.read_bytes(), make_spec(input_size=SIZE))


@pytest.fixture
def mac(monkeypatch, tmp_path):
    """A function that sets how the stand-in behaves; it does well if not called."""

    def behave(**behaviour):
        pretend_mac(monkeypatch, tmp_path / "cache", **behaviour)

    behave()
    return behave


def is_gone(pid):
    """Whether a child of ours ended and was waited for: a zombie still answers."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_open_tells_what_the_package_is(package, mac):
    with CoreMLProcess(package) as process:
        opened, _ = process.request("open")
    assert opened["functions"] == {"": {"inputs": [["image", "imageType"]], "outputs": [["logits", "multiArrayType"]]}}
    assert opened["compiled_now"]
    assert opened["load_ms"] > 0
    assert opened["native_load_ms"] == 5.0
    assert is_gone(process.pid)


def test_it_compiles_once_for_all_processes_and_units(package, mac):
    for units in ("cpu", "ane", "all"):
        with CoreMLProcess(package, units) as process:
            assert process.request("open")[0]["compiled_now"] == (units == "cpu")
            assert not process.request("load")[0].get("compiled_now")
    assert compilations(package) == 1


def test_an_entry_that_does_not_load_is_made_again(package, mac, tmp_path):
    """Core ML may refuse what has all its bytes: another version of it wrote them."""
    with CoreMLProcess(package) as process:
        process.request("open")
    entry = next((tmp_path / "cache" / "coreml").iterdir())
    (entry / "model.mlmodelc" / "model").write_bytes(b"stale")
    (entry / "content.json").write_text('{"fake.json": "%s"}' % sha256(entry / "model.mlmodelc" / "fake.json"))  # noqa: UP031
    with CoreMLProcess(package) as process:
        process.request("open")
        process.request("predict", [PIXELS], **CALL)
    assert compilations(package) == 2


def sha256(path):
    from unet_edge_runtime.files import sha256_of

    return sha256_of(path)


@pytest.mark.parametrize(
    ("behaviour", "do", "message"),
    [
        ({"ane_load": "kill"}, "open", "was killed by SIGKILL while it opened the model on the CPU and Neural Engine"),
        (
            {"ane_predict": "kill"},
            "predict",
            "was killed by SIGKILL while it ran the model on the CPU and Neural Engin",
        ),
        (
            {"ane_plan": "kill"},
            "plan",
            "was killed by SIGKILL while it planned the model's operations on the CPU and N",
        ),
        ({"ane_predict": "exit"}, "predict", "ended with exit code 3 while it ran the model"),
    ],
)
def test_a_death_names_its_cause_the_units_and_a_remedy(package, mac, behaviour, do, message):
    mac(**behaviour)
    process = CoreMLProcess(package)
    arguments = ([PIXELS], CALL) if do == "predict" else ([], {})
    with pytest.raises(BackendError) as caught:
        process.request(do, arguments[0], **arguments[1])
    assert str(package) in str(caught.value)
    assert message in str(caught.value)
    assert "try --compute-units cpu" in str(caught.value)
    assert ("ANECCompile() FAILED" in str(caught.value)) == ("kill" in behaviour.values())
    assert "\n" not in str(caught.value)
    assert is_gone(process.pid)
    with pytest.raises(BackendError) as again:
        process.request("load")
    assert str(again.value) == str(caught.value)


def test_on_the_cpu_the_remedy_is_another(package, mac):
    mac(cpu_predict="kill")
    with CoreMLProcess(package, "cpu") as process, pytest.raises(BackendError, match="--backend coreml-ref"):
        process.request("predict", [PIXELS], **CALL)


def test_a_child_that_hangs_is_stopped(package, mac):
    mac(ane_predict="hang")
    process = CoreMLProcess(package, timeout=60)
    process.request("open")
    process.timeout = 0.5
    started = time.monotonic()
    with pytest.raises(BackendError, match=r"gave no answer within 0\.5 s while it ran the model .* was stopped"):
        process.request("predict", [PIXELS], **CALL)
    assert time.monotonic() - started < 10
    assert is_gone(process.pid)


def test_a_child_that_does_not_even_read_is_stopped(package, mac):
    """A large input fills the pipe, so that writing blocks."""
    process = CoreMLProcess(package, timeout=60)
    process.request("open")
    os.kill(process.pid, signal.SIGSTOP)
    process.timeout = 0.5
    with pytest.raises(BackendError, match="gave no answer"):
        process.request("predict", [np.zeros((4096, 4096, 3), np.uint8)], **CALL)
    assert is_gone(process.pid)


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        (
            {"any_compile": "raise"},
            ModelFileError,
            r"Core ML cannot compile it \(compile failed: error code: -14\): expo",
        ),
        ({"ane_load": "raise"}, BackendError, r"Core ML cannot load it on CPU_AND_NE \(load failed: error code: -14\)"),
    ],
)
def test_what_core_ml_refuses_is_one_line(package, mac, behaviour, kind, message):
    mac(**behaviour)
    with CoreMLProcess(package) as process:
        with pytest.raises(kind, match=message) as caught:
            process.request("open")
        assert "\n" not in str(caught.value)
        assert not is_gone(process.pid)


def test_a_prediction_that_fails_leaves_the_child_alive(package, mac):
    with CoreMLProcess(package) as process:
        process.request("open")
        with pytest.raises(BackendError, match=r"Core ML cannot run it on CPU_AND_NE \(MultiArray shape"):
            process.request("predict", [PIXELS[:16]], **CALL)
        assert process.request("predict", [PIXELS], **CALL)[1][0].shape == (1, 2, *SIZE)


def test_what_frameworks_print_does_not_get_into_the_answers(package, mac):
    mac(ane_predict="chatter")
    with CoreMLProcess(package) as process:
        assert process.request("predict", [PIXELS], **CALL)[1][0].shape == (1, 2, *SIZE)


def test_measure_returns_every_sample(package, mac):
    with CoreMLProcess(package) as process:
        call = {key: CALL[key] for key in ("function", "input_name", "image")}
        samples, _ = process.request("measure", [PIXELS], **call, warmup=2, runs=5)
    assert len(samples["wall_ms"]) == 5
    assert min(samples["wall_ms"]) > 0
    assert samples["native_ms"] == [1.5] * 5


def test_devices(package, mac):
    with CoreMLProcess(package) as process:
        told, _ = process.request("devices")
    assert told["devices"] == [
        {"kind": "CPU", "cores": None},
        {"kind": "GPU", "cores": None},
        {"kind": "NeuralEngine", "cores": 16},
    ]


def test_a_missing_coremltools_is_named(package, mac, monkeypatch):
    monkeypatch.setenv("FAKE_COREML_MISSING", "1")
    with (
        CoreMLProcess(package) as process,
        pytest.raises(MissingExtraError, match=r"needs coremltools: pip install 'unet-edge\[export\]'"),
    ):
        process.request("open")


def test_a_package_that_cannot_be_read(package, mac):
    (package / "fake.json").write_text("{")
    with CoreMLProcess(package) as process, pytest.raises(ModelFileError, match="not a readable Core ML package"):
        process.request("open")


def test_unknown_compute_units_start_nothing(package):
    with pytest.raises(BackendError, match="must be one of cpu, gpu, ane, all, not 'npu'"):
        CoreMLProcess(package, "npu")


def test_threads_take_turns(package, mac):
    results = []
    with CoreMLProcess(package) as process:

        def ask(level):
            pixels = np.full((*SIZE, 3), level, np.uint8)
            results.append((level, process.request("predict", [pixels], **CALL)[1][0]))

        threads = [threading.Thread(target=ask, args=(level,)) for level in (0, 80, 160, 240) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 12
    for level, output in results:
        first = next(other for same, other in results if same == level)
        np.testing.assert_array_equal(output, first)
    assert len({output.tobytes() for _, output in results}) == 4


def test_a_forgotten_process_ends(package, mac):
    process = CoreMLProcess(package)
    process.request("open")
    pid = process.pid
    del process
    gc.collect()
    assert is_gone(pid)


def test_closing_twice_and_asking_after_it(package, mac):
    process = CoreMLProcess(package)
    process.close()
    process.close()
    with pytest.raises(BackendError, match="was closed: open it again"):
        process.request("open")


def test_no_child_outlives_its_parent(package, mac):
    """Neither when the parent ends in peace nor when it is killed."""
    code = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom unet_edge_runtime.coreml_client import CoreMLProcess\n"
        "process = CoreMLProcess(Path(sys.argv[1]))\nprocess.request('open')\nprint(process.pid, flush=True)\n"
        "if sys.argv[2] == 'kill': os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    runtime = str(Path(coreml_process.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], runtime])}
    for end in ("peace", "kill"):
        command = [sys.executable, "-c", code, str(package), end]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert (done.returncode == 0) == (end == "peace"), done.stderr
        wait_for_end(int(done.stdout))


def wait_for_end(pid):
    for _ in range(100):
        # Whoever inherits an orphan may leave it a zombie for a while: that has ended too.
        status = Path(f"/proc/{pid}/stat")
        if is_gone(pid) or (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"):
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} lives on")


def test_the_child_imports_nothing_heavy(package, mac):
    code = "import sys, unet_edge_runtime.coreml_process\nprint(*{n.partition('.')[0] for n in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"torch", "coremltools", "onnxruntime", "onnx", "click", "unet_edge", "unet_edge_export"}


class TestRealCoremltools:
    """What the stand-in promises, held against coremltools itself: it imports off macOS too."""

    @pytest.fixture
    def ct(self):
        return pytest.importorskip("coremltools")

    def test_calls_fit_its_signatures(self, ct):
        from coremltools.models.compute_plan import MLComputePlan

        inspect.signature(ct.models.CompiledMLModel).bind(
            "a.mlmodelc", compute_units=ct.ComputeUnit.ALL, function_name=None
        )
        inspect.signature(ct.models.CompiledMLModel.predict).bind(None, {"image": 1})
        inspect.signature(ct.models.utils.compile_model).bind("a.mlpackage", "b.mlmodelc")
        inspect.signature(ct.models.utils.load_spec).bind("a.mlpackage")
        inspect.signature(MLComputePlan.load_from_path).bind(path="a.mlmodelc", compute_units=ct.ComputeUnit.ALL)
        plan = MLComputePlan
        inspect.signature(plan.get_compute_device_usage_for_mlprogram_operation).bind(None, None)
        inspect.signature(plan.get_estimated_cost_for_mlprogram_operation).bind(None, None)
        assert isinstance(plan.model_structure, property)
        assert {unit.name for unit in ct.ComputeUnit} == set(coreml_process._UNITS.values())

    def test_fields_of_a_plan(self, ct):
        from coremltools.models import compute_device, compute_plan

        def names(kind):
            return {field.name for field in fields(kind)}

        assert {"operator_name", "outputs", "blocks"} <= names(compute_plan.MLModelStructureProgramOperation)
        assert {"operations"} <= names(compute_plan.MLModelStructureProgramBlock)
        assert {"block"} <= names(compute_plan.MLModelStructureProgramFunction)
        assert {"functions"} <= names(compute_plan.MLModelStructureProgram)
        assert {"program"} <= names(compute_plan.MLModelStructure)
        assert {"preferred_compute_device", "supported_compute_devices"} <= names(compute_plan.MLComputePlanDeviceUsage)
        assert {"weight"} <= names(compute_plan.MLComputePlanCost)
        for name in ("MLCPUComputeDevice", "MLGPUComputeDevice", "MLNeuralEngineComputeDevice"):
            assert hasattr(compute_device, name)
        assert isinstance(compute_device.MLNeuralEngineComputeDevice.total_core_count, property)
        assert hasattr(compute_device.MLComputeDevice, "get_all_compute_devices")

    def test_a_compiled_model_keeps_its_proxy_where_we_look(self, ct):
        source = inspect.getsource(ct.models.CompiledMLModel)
        assert "self._proxy = " in source
        durations = inspect.getsource(ct.models.MLModel.last_predict_duration_in_nano_seconds.fget)
        assert "get_last_predict_duration_in_nano_seconds()" in durations

    @pytest.mark.skipif(sys.platform == "darwin", reason="there it compiles")
    def test_off_macos_it_reads_the_package_and_refuses_to_compile(self, ct, tmp_path, monkeypatch):
        monkeypatch.setenv("UNET_EDGE_CACHE", str(tmp_path / "cache"))
        path = tmp_path / "real.mlpackage"
        save_real_package(ct, path)
        with (
            CoreMLProcess(path) as process,
            pytest.raises(ModelFileError, match=r"cannot compile it \(Compiling a Core ML models is only support"),
        ):
            process.request("open")


def save_real_package(ct, path):
    from coremltools.converters.mil import Builder as Mb

    @Mb.program(input_specs=[Mb.TensorSpec(shape=(1, 3, 4, 4))])
    def program(x):
        return Mb.relu(x=x)

    ct.convert(program, convert_to="mlprogram", skip_model_load=True).save(str(path))
