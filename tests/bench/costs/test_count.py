"""Counts: against torch's own, by hand, and checkpoint against ONNX against Core ML."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from unet_edge.checkpoint import save_checkpoint
from unet_edge.model import UNet, UNetConfig
from unet_edge_bench.costs import layer_costs
from unet_edge_bench.costs.layer import kind_of
from unet_edge_runtime.errors import BackendError, InputError, ModelFileError

SIZE = (48, 64)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "Conv2d", "conv2d", "conv"], "conv"),
        (["ConvTranspose", "ConvTranspose2d", "conv_transpose2d", "conv_transpose"], "conv_transpose"),
        (["Relu", "ReLU", "relu"], "relu"),
        (["MaxPool", "NhwcMaxPool", "MaxPool2d", "max_pool2d", "max_pool"], "pool"),
        (["Resize", "Upsample", "upsample_bilinear2d", "upsample_bilinear"], "resize"),
        (["Concat", "cat", "concat"], "concat"),
        (["ArgMax", "argmax", "reduce_argmax"], "argmax"),
        (["ReorderInput", "ReorderOutput"], "reorder"),
        (["BatchNorm2d"], "batch_norm"),
        (["LeakyRelu"], "leaky_relu"),
    ],
)
def test_one_word_for_an_operation(names, kind):
    assert {kind_of(name) for name in names} == {kind}


def arithmetic(costs):
    return [(cost.kind, cost.macs) for cost in costs if cost.macs]


def total(costs, name):
    return sum(getattr(cost, name) for cost in costs)


def torch_flops(size, **config):
    """Two a multiply-accumulate, counted by torch while a network without data runs."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UNet(UNetConfig(**config)).eval()(torch.zeros(1, 3, *size))
    return counter.get_total_flops()


def test_three_files_of_a_network_cost_the_same(network, package):
    checkpoint = layer_costs(network.checkpoint, "torch", SIZE)
    graph = layer_costs(network.onnx, "onnx", SIZE)
    program = layer_costs(package, "coreml-ref", SIZE)
    assert total(checkpoint, "flops") == torch_flops(SIZE, base_channels=4, depth=2, up=network.up)
    assert arithmetic(checkpoint) == arithmetic(graph) == arithmetic(program)
    # Weights and activations, layer by layer: Core ML's have a multiplication for 8-bit pictures besides.
    assert [(c.name, c.kind, c.bytes) for c in checkpoint] == [(c.name, c.kind, c.bytes) for c in graph]
    assert total(checkpoint, "weight_bytes") == total(graph, "weight_bytes") == total(program, "weight_bytes")


def test_the_fixed_graph_costs_what_the_dynamic_one_does(network):
    assert layer_costs(network.fixed, "onnx", SIZE) == layer_costs(network.onnx, "onnx", SIZE)


def test_layers_are_in_order_and_have_their_names(network):
    costs = layer_costs(network.onnx, "onnx", SIZE)
    names = [cost.name for cost in costs]
    assert names[0] == "inc.double_conv.0"
    assert names[-1] == "outc.conv"
    assert names.index("up1.up") + 1 == names.index("up1.cat")
    kinds = {cost.name: cost.kind for cost in costs}
    assert kinds["up1.up"] == {"transposed": "conv_transpose", "bilinear": "resize"}[network.up]
    assert kinds["up1.cat"] == "concat"
    assert kinds["down1.maxpool_conv.0"] == "pool"


def test_a_batch_reads_its_weights_once_where_the_graph_takes_batches(network, package):
    for path, weights in ((network.onnx, 1), (network.checkpoint, 1), (network.fixed, 3), (package, 3)):
        backend = {".onnx": "onnx", ".pth": "torch", ".mlpackage": "coreml"}[path.suffix]
        one, three = (layer_costs(path, backend, SIZE, batch) for batch in (1, 3))
        assert total(three, "macs") == 3 * total(one, "macs")
        assert total(three, "output_bytes") == 3 * total(one, "output_bytes")
        assert total(three, "weight_bytes") == weights * total(one, "weight_bytes")


def test_the_first_convolution_by_hand(network):
    first = layer_costs(network.onnx, "onnx", SIZE)[0]
    pixels = SIZE[0] * SIZE[1]
    assert first.macs == pixels * 4 * 3 * 9
    assert first.flops == 2 * first.macs
    assert (first.input_bytes, first.output_bytes) == (4 * 3 * pixels, 4 * 4 * pixels)
    assert first.weight_bytes == 4 * (4 * 3 * 9 + 4)
    assert first.bytes == first.input_bytes + first.output_bytes + first.weight_bytes


# Width, decoder, size -> GFLOP: ../shared/reference/performance.md, section 1, counted there by other means.
PUBLISHED = [
    (16, "transposed", (256, 256), 6.07),
    (16, "transposed", (640, 960), 56.9),
    (16, "bilinear", (256, 256), 5.04),
    (16, "bilinear", (1280, 1920), 189),
    (32, "transposed", (512, 512), 96.6),
    (32, "bilinear", (640, 960), 188),
    pytest.param(64, "transposed", (512, 512), 385.4, marks=pytest.mark.slow),
    pytest.param(64, "transposed", (1280, 1920), 3612.9, marks=pytest.mark.slow),
    pytest.param(64, "bilinear", (512, 512), 319.9, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("width", "up", "size", "gflop"), PUBLISHED)
def test_published_figures(tmp_path, make_spec, width, up, size, gflop):
    path = tmp_path / "model.pth"
    save_checkpoint(path, UNet(UNetConfig(base_channels=width, up=up)), make_spec(multiple=16), {})
    costs = layer_costs(path, "torch", size)
    assert total(costs, "flops") / 1e9 == pytest.approx(gflop, rel=0.003)
    assert total(costs, "flops") == torch_flops(size, base_channels=width, up=up)


def test_every_operation_by_hand(tmp_path):
    """Groups, strides, a transposed convolution, matrix products with and without transposed operands."""
    make, floats = onnx.helper.make_node, onnx.TensorProto.FLOAT
    nodes = [
        make("Conv", ["x", "w1"], ["a"], "grouped", group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
        make("ConvTranspose", ["a", "w2", "b2"], ["b"], "transposed", strides=[2, 2]),
        make("Flatten", ["b"], ["c"], "flat"),
        make("Gemm", ["c", "w3"], ["d"], "gemm", transB=1),
        make("Gemm", ["d", "w4"], ["e"], "turned", transA=1),
        make("MatMul", ["e", "w5"], ["y"], "product"),
    ]
    shapes = {"w1": (6, 2, 3, 5), "w2": (6, 3, 2, 2), "b2": (3,), "w3": (7, 3 * 8 * 8), "w4": (1, 5), "w5": (5, 9)}
    weights = [onnx.numpy_helper.from_array(torch.ones(shape).numpy(), name) for name, shape in shapes.items()]
    x = onnx.helper.make_tensor_value_info("x", floats, (1, 4, 8, 10))
    y = onnx.helper.make_tensor_value_info("y", floats, (7, 9))
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    costs = {cost.name: cost for cost in layer_costs(tmp_path / "model.onnx", "onnx", (8, 10))}
    assert {name: cost.macs for name, cost in costs.items()} == {
        "grouped": (6 * 4 * 4) * (2 * 3 * 5),
        "transposed": (6 * 4 * 4) * (3 * 2 * 2),
        "flat": 0,
        "gemm": 7 * (3 * 8 * 8),
        "turned": (7 * 5) * 1,
        "product": (7 * 9) * 5,
    }
    assert costs["transposed"].weight_bytes == 4 * (6 * 3 * 2 * 2 + 3)
    assert costs["transposed"].input_bytes == 4 * 6 * 4 * 4


def test_how_pixels_are_resized_is_no_weight(network):
    weights = {cost.kind: cost.weight_bytes for cost in layer_costs(network.onnx, "onnx", SIZE)}
    assert weights.get("resize", 0) == 0
    assert weights["conv"] > 0


@pytest.mark.parametrize("kind", ["onnx", "checkpoint", "fixed", "package"])
def test_a_size_that_does_not_fit(request, network, kind):
    path = request.getfixturevalue("package") if kind == "package" else getattr(network, kind)
    expected = (
        "multiples of 4, not 50x64" if kind in ("onnx", "checkpoint") else "takes images of 48x64 only, not 50x64"
    )
    with pytest.raises((InputError, BackendError), match=expected) as caught:
        layer_costs(path, "whatever", (50, 64))
    message = str(caught.value)
    assert message.count(str(path)) == 1
    assert "\n" not in message


@pytest.mark.parametrize(("size", "batch"), [((0, 64), 1), ((64, -4), 1), ((64, 64), 0), ((1 << 20, 1 << 20), 1)])
def test_a_size_that_nothing_has(network, size, batch):
    with pytest.raises(InputError, match=r"give at least 1 of each|too large: choose a smaller size"):
        layer_costs(network.onnx, "onnx", size, batch)


@pytest.mark.parametrize("suffix", [".onnx", ".pth"])
def test_a_damaged_file(tmp_path, network, suffix):
    whole = network.onnx if suffix == ".onnx" else network.checkpoint
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises((BackendError, ModelFileError), match=f"damaged{suffix}: ") as caught:
        layer_costs(path, "whatever", SIZE)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ModelFileError, match="no such model file"):
        layer_costs(tmp_path / "none.onnx", "onnx", SIZE)
    (tmp_path / "model.txt").write_text("hello")
    with pytest.raises(ModelFileError, match="unknown kind of model"):
        layer_costs(tmp_path / "model.txt", "mine", SIZE)


def test_a_graph_that_takes_no_images(tmp_path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT64, (1, 4))
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, (1, 4))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(BackendError, match="does not take one batch of float images"):
        layer_costs(tmp_path / "odd.onnx", "onnx", SIZE)
