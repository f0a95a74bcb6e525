"""Checkpoint to ONNX, through the exporter that is built on `torch.export`."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from unet_edge.model import UNet
from unet_edge_runtime.errors import BackendError, MissingExtraError
from unet_edge_runtime.spec import METADATA_KEY, ModelSpec

from .graph import ExportGraph, operation_name
from .quiet import first_line, quiet

__all__ = ["OPSET", "write_onnx"]

OPSET = 18
IR_VERSION = 8  # what belongs to opset 18; the exporter writes a newer one, which older runtimes refuse to load
AXES = {0: "batch", 2: "height", 3: "width"}
MAX_BYTES = 2_000_000_000  # a protobuf message, and so a single-file ONNX model, ends at 2 GiB


def write_onnx(model: UNet, spec: ModelSpec, path: Path) -> None:
    """Write a checked, self-describing ONNX file.

    Args:
        model: the trained network.
        spec: what is embedded; `input_size` None makes batch, height and width dynamic, and otherwise they are
            fixed at one image of that size. `head`, `input_name` and `output_name` shape the graph.
        path: the file.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        BackendError: the network is too large for one file, or the exporter failed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx", "export", "export to ONNX") from None
    if sum(p.numel() * p.element_size() for p in model.parameters()) > MAX_BYTES:
        raise BackendError(
            "the network has more than 2 GB of weights, which no single ONNX file holds: train it narrower"
        )
    graph = ExportGraph(model, spec)
    proto = _convert(graph, spec)
    _name_nodes(proto, graph)
    _strip(proto)
    _describe(proto, spec)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def _convert(graph: ExportGraph, spec: ModelSpec) -> Any:
    # Dynamic axes are traced at an odd little size, so that the parity check always runs at another one.
    size = spec.input_size or (2 * spec.multiple, 3 * spec.multiple)
    example = torch.zeros(1 if spec.input_size else 2, spec.channels, *size)
    with quiet():
        try:
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.input_name],
                output_names=[spec.output_name],
                dynamic_shapes=None if spec.input_size else (_dynamic_axes(spec.multiple),),
                external_data=False,
                verbose=False,
            )
        # The exporter wraps whatever went wrong anywhere in torch, onnxscript or onnx.
        except Exception as error:
            raise BackendError(
                f"PyTorch {torch.__version__} could not convert the network to ONNX ({first_line(error)}): "
                "install other versions of torch and onnxscript"
            ) from error
    assert program is not None
    return program.model_proto


def _dynamic_axes(multiple: int) -> dict[int, Any]:
    """Axis -> symbol; sides are declared as multiples, so that the two branches of each skip are known to fit."""
    dim = torch.export.Dim
    return {0: dim("batch"), 2: multiple * dim("rows"), 3: multiple * dim("columns")}


def _name_nodes(proto: Any, graph: ExportGraph) -> None:
    """Call each node after the layer it comes from, which Netron, profilers and reports then show.

    The exporter notes the modules around each node, outermost first, and at the end the traced operation.
    """
    taken: set[str] = set()
    for node in proto.graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
        name = operation_name(graph, *scopes[-2:]) if len(scopes) > 1 else node.name
        node.name = name if name not in taken else next(n for n in _numbered(name) if n not in taken)
        taken.add(node.name)


def _numbered(name: str) -> Iterator[str]:
    return (f"{name}_{number}" for number in itertools.count(1))


def _strip(proto: Any) -> None:
    """Remove the exporter's notes: stack traces with this machine's paths, and shapes that can be inferred."""
    graph = proto.graph
    del graph.value_info[:]
    for item in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        if hasattr(item, "metadata_props"):
            del item.metadata_props[:]
        item.doc_string = ""


def _describe(proto: Any, spec: ModelSpec) -> None:
    proto.ir_version = IR_VERSION
    proto.producer_name = "unet-edge"
    proto.producer_version = str(spec.provenance.get("exported_with", {}).get("unet-edge", ""))
    proto.graph.name = "unet"
    proto.doc_string = f"U-Net, {spec.head} of {', '.join(spec.class_names)}"
    if spec.input_size is None:
        for value in (*proto.graph.input, *proto.graph.output):
            for axis, name in AXES.items():
                value.type.tensor_type.shape.dim[axis].dim_param = name
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, spec.to_json()
