"""Who takes part: each peer's runner, environment, settings, and how the checkpoint becomes its file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from environments import call, fingerprint, paths, requirements_file
from peer_backend import spec_file

from unet_edge_runtime.errors import BackendError
from unet_edge_runtime.files import atomic_path
from unet_edge_runtime.spec import ModelSpec

__all__ = ["OURS", "PEERS", "Model", "Peer", "convert"]

OURS = "ours"


@dataclass(frozen=True)
class Model:
    """One set of weights at one input size.

    Attributes:
        name: what the tables call it.
        checkpoint: the weights.
        onnx: our export of them, fixed at `size`, with `spec_file(onnx)` beside it.
        size: (height, width) of the network's input.
        folder: for the peers' files.
    """

    name: str
    checkpoint: Path
    onnx: Path
    size: tuple[int, int]
    folder: Path


@dataclass(frozen=True)
class Peer:
    """One way to run the network.

    Attributes:
        name: for `--only`, and of its requirements.
        label: for people.
        runner: a backend's name, or "module:Class".
        settings: that it runs with, in words.
        package: whose version the table shows.
        own: whether it has an environment of its own.
        make: (model, python, target) -> None writes its file; None where it reads our ONNX file or the checkpoint.
        suffix: of the file or folder that it reads.
    """

    name: str
    label: str
    runner: str
    settings: str
    package: str
    own: bool = True
    make: Callable[[Model, str, Path], None] | None = None
    suffix: str = ".onnx"


def convert(peer: Peer, model: Model, python: str) -> Path:
    """The file that a peer reads, made by its own converter unless the same was made before.

    Raises:
        BackendError: the converter failed; one line says why.
    """
    if peer.make is None:
        return model.checkpoint if peer.suffix == ".pth" else model.onnx
    converters = [Path(__file__), *sorted(Path(__file__).parent.glob("to_*.py"))]
    folder = model.folder / f"{peer.name}-{fingerprint([model.onnx, requirements_file(peer.name), *converters])}"
    target = folder / f"model{peer.suffix}"
    if not target.exists():
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            peer.make(model, python, temporary / target.name)
            if not (temporary / target.name).exists():
                raise BackendError(f"{peer.label}: its converter wrote no {target.name}")
            shutil.copyfile(spec_file(model.onnx), spec_file(temporary / target.name))
    return target


def _to_ncnn(model: Model, python: str, target: Path) -> None:
    # Its Python package imports torch; the converter itself is a program that needs nothing.
    where = "import importlib.util as u; print(u.find_spec('pnnx').submodule_search_locations[0])"
    pnnx = Path(call([python, "-c", where]).strip()) / "pnnx"
    work = target.parent / "pnnx"
    work.mkdir()
    shutil.copyfile(model.onnx, work / "model.onnx")
    spec = ModelSpec.from_json(spec_file(model.onnx).read_text(encoding="utf-8"))
    shape = ",".join(map(str, (1, spec.channels, *model.size)))
    call([os.fspath(pnnx), "model.onnx", f"inputshape=[{shape}]", "fp16=0"], cwd=work)
    target.mkdir()
    for kind in ("param", "bin"):
        (work / f"model.ncnn.{kind}").replace(target / f"net.{kind}")
    shutil.rmtree(work)


def _to_mnn(model: Model, python: str, target: Path) -> None:
    command = [os.fspath(Path(python).with_name("mnnconvert")), "-f", "ONNX", "--modelFile", os.fspath(model.onnx)]
    call([*command, "--MNNModel", os.fspath(target), "--bizCode", "unet"])


def _by_script(name: str) -> Callable[[Model, str, Path], None]:
    def make(model: Model, python: str, target: Path) -> None:
        script = os.fspath(Path(__file__).with_name(name))
        size = [str(side) for side in model.size]
        call(
            [python, script, os.fspath(model.checkpoint), *size, os.fspath(target)], {"PYTHONPATH": paths("", "export")}
        )

    return make


PEERS = (
    Peer(OURS, "unet-edge (ours)", "onnx", "ONNX Runtime through our backend", "onnxruntime", own=False),
    Peer(
        "onnxruntime",
        "ONNX Runtime, bare",
        "bare_session:BareSession",
        "a session by hand on the same file, all optimisations, sequential",
        "onnxruntime",
        own=False,
    ),
    Peer("torch", "PyTorch eager, NCHW", "torch_runners:EagerRunner", "its default", "torch", own=False, suffix=".pth"),
    Peer("channels-last", "PyTorch eager, NHWC", "torch", "channels_last memory", "torch", own=False, suffix=".pth"),
    Peer(
        "compiled",
        "PyTorch compiled",
        "torch_runners:CompiledRunner",
        "torch.compile (inductor), channels_last, weights frozen; its compiler's cache is full: the very first start "
        "takes longer",
        "torch",
        own=False,
        suffix=".pth",
    ),
    Peer(
        "openvino",
        "OpenVINO",
        "openvino_runner:OpenVINORunner",
        "reads our ONNX file, hint LATENCY, fp32, input shared",
        "openvino",
    ),
    Peer("ncnn", "ncnn", "ncnn_runner:NcnnRunner", "from our ONNX file by pnnx, fp32, Winograd (its default)", "ncnn",
         make=_to_ncnn, suffix=".ncnn"),
    Peer("mnn", "MNN", "mnn_runner:MNNRunner", "from our ONNX file by mnnconvert, module API, precision high (fp32)",
         "mnn", make=_to_mnn, suffix=".mnn"),
    Peer("litert", "LiteRT", "litert_runner:LiteRTRunner", "by litert-torch, NHWC graph, interpreter with XNNPACK",
         "ai-edge-litert", make=_by_script("to_litert.py"), suffix=".tflite"),
    Peer("executorch", "ExecuTorch", "executorch_runner:ExecuTorchRunner", "by torch.export, XNNPACK partitioner",
         "executorch", make=_by_script("to_executorch.py"), suffix=".pte"),
)  # fmt: skip
