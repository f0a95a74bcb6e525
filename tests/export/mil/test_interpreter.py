"""The interpreter on whole networks, its precision, and what goes in and out."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from tests.export.conftest import lively_model
from unet_edge_export.mil import Interpreter, Package
from unet_edge_runtime.errors import InputError, ModelFileError

from .building import Program

# torch deprecates tracing, which is one of coremltools' two front ends.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.trace", "ignore::torch.jit.TracerWarning")


def picture(size=(64, 96), seed=0):
    """(H, W, 3) uint8, smooth."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def torchs(model, pixels):
    with torch.inference_mode():
        return model(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255).numpy()


class TestNetworks:
    @pytest.mark.parametrize("precision", ["stored", "ideal"])
    @pytest.mark.parametrize("up", ["transposed", "bilinear"])
    def test_fp32_is_torch(self, converted, up, precision):
        model, _, path = converted(up, "fp32")
        interpreter = Interpreter(path, precision=precision)
        for seed in range(3):
            expected = torchs(model, picture(seed=seed))
            logits = interpreter.predict({"image": picture(seed=seed)})["logits"]
            assert logits.dtype == np.float32
            assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
            assert (logits.argmax(1) == expected.argmax(1)).all()
            assert 0.01 < expected.argmax(1).mean() < 0.99

    @pytest.mark.parametrize("up", ["transposed", "bilinear"])
    def test_fp16_is_as_close_as_fp16_is(self, converted, up):
        model, _, path = converted(up, "fp16")
        stored, ideal = Interpreter(path), Interpreter(path, precision="ideal")
        expected = torchs(model, picture())
        bound = np.abs(expected).max()
        rounded, exact = (each.predict({"image": picture()})["logits"] for each in (stored, ideal))
        assert rounded.dtype == np.float16
        assert exact.dtype == np.float32
        assert 1e-5 * bound < np.abs(rounded - expected).max() < 5e-3 * bound
        assert 1e-5 * bound < np.abs(exact - expected).max() < 5e-3 * bound
        assert (rounded.argmax(1) == expected.argmax(1)).mean() > 0.998
        assert np.abs(rounded - exact).max() > 0

    def test_the_paths_of_a_package(self, converted):
        _, _, path = converted()
        a, b, c = (Interpreter(each).predict({"image": picture()}) for each in (path, str(path), Package.open(path)))
        np.testing.assert_array_equal(a["logits"], b["logits"])
        np.testing.assert_array_equal(a["logits"], c["logits"])

    def test_a_weight_that_is_wrong_shows(self, converted, tmp_path):
        """The test of the test: one flipped sign in one weight is seen in the logits."""
        import shutil

        model, _, path = converted("transposed", "fp32")
        copy = tmp_path / "a.mlpackage"
        shutil.copytree(path, copy)
        package = Package.open(copy)
        convs = [each for each in package.function().operations if each.type == "conv"]
        name = convs[3].inputs["weight"][0]
        offset = next(each for each in package.function().operations if each.name == name).attributes["val"].blob[1]
        weights = copy / "Data/com.apple.CoreML/weights/weight.bin"
        content = bytearray(weights.read_bytes())
        start = int.from_bytes(content[offset + 16 : offset + 24], "little")
        content[start + 3] ^= 0x80
        weights.write_bytes(bytes(content))
        expected = torchs(model, picture())
        logits = Interpreter(copy).predict({"image": picture()})["logits"]
        assert np.abs(logits - expected).max() > 1e-4 * np.abs(expected).max()

    def test_coremltools_own_program_of_many_operations(self, ct, tmp_path):
        """What coremltools writes for a network that is no U-Net, by its other front end (tracing)."""

        class Odd(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.a = torch.nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect", stride=2)
                self.b = torch.nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1)
                self.pool = torch.nn.AvgPool2d(3, 2, 1)

            def forward(self, x):
                y = torch.nn.functional.leaky_relu(self.a(x), 0.1)
                z = self.pool(torch.nn.functional.silu(self.b(y)))
                z = torch.nn.functional.pixel_shuffle(torch.cat([y, z, y[:, :2]], 1), 2)
                z = torch.nn.functional.interpolate(z, scale_factor=1.5, mode="nearest")
                z = torch.nn.functional.interpolate(z, size=(17, 23), mode="bilinear", align_corners=False)
                z = z[:, :, 1:-2, ::2].clamp(-1, 1).permute(0, 2, 3, 1).reshape(1, 14, -1)
                return torch.softmax(z * z.mean(2, keepdim=True) + z.amax(1, keepdim=True).sigmoid(), 1)

        torch.manual_seed(0)
        model, x = Odd().eval(), torch.rand(1, 3, 12, 16)
        with torch.no_grad():
            program = ct.convert(
                torch.jit.trace(model, x),
                inputs=[ct.TensorType("x", x.shape)],
                outputs=[ct.TensorType("y")],
                compute_precision=ct.precision.FLOAT32,
                minimum_deployment_target=ct.target.macOS14,
            )
            program.save(str(tmp_path / "a.mlpackage"))
            expected = model(x).numpy()
        got = Interpreter(tmp_path / "a.mlpackage").predict({"x": x.numpy()})["y"]
        np.testing.assert_allclose(got, expected, atol=1e-6)


class TestPrecision:
    def half(self, tmp_path):
        program = Program()
        x = program.op("cast", (4,), "fp16", x=program.input("x", (4,)), dtype="fp16")
        y = program.op("mul", (4,), "fp16", x=x, y=np.float16(1 / 3))
        program.output(program.op("cast", (4,), "fp32", x=y, dtype="fp32"))
        return program.write(tmp_path / "half.mlpackage")

    def test_stored_rounds_each_value_and_ideal_none(self, tmp_path):
        x = np.array([3.3, 2049, 7e4, 1e-8], np.float32)
        stored, ideal = (
            next(iter(Interpreter(self.half(tmp_path), precision=each).predict({"x": x}).values()))
            for each in ("stored", "ideal")
        )
        third = np.float16(1 / 3)
        with np.errstate(over="ignore"):
            expected = (x.astype(np.float16) * third).astype(np.float32)
        np.testing.assert_array_equal(stored, expected)
        assert stored[0] != np.float16(3.3).astype(np.float32) * third.astype(np.float32), "this product is rounded"
        assert np.isinf(stored[2]), "70000 overflows in half precision"
        np.testing.assert_allclose(ideal, x * np.float32(third), rtol=1e-7)

    def test_the_hook_sees_every_value_before_and_after_rounding(self, tmp_path):
        seen = {}

        def hook(operation, name, raw, stored):
            seen[name] = (operation and operation.type, raw.numpy().copy(), stored.numpy().copy())

        x = np.array([1.0001, 3, 5, 7], np.float32)
        Interpreter(self.half(tmp_path)).predict({"x": x}, hook)
        assert [kind for kind, _, _ in seen.values()] == [None, "cast", "mul", "cast"]
        name = next(name for name, (kind, _, _) in seen.items() if kind == "cast")
        np.testing.assert_array_equal(seen[name][1], x)
        np.testing.assert_array_equal(seen[name][2], x.astype(np.float16))

    def test_an_unknown_precision(self, tmp_path):
        with pytest.raises(InputError, match="precision must be one of stored, ideal, not 'fp8'"):
            Interpreter(self.half(tmp_path), precision="fp8")

    def test_values_are_freed_after_their_last_use(self, tmp_path):
        program = Program()
        x = program.input("x", (64,))
        for _ in range(20):
            x = program.op("square", (64,), x=x)
        program.output(x)
        alive, most = [], 0

        def hook(operation, name, raw, stored):
            nonlocal most
            alive.append(weakref.ref(stored))
            most = max(most, sum(ref() is not None for ref in alive))

        interpreter = Interpreter(program.write(tmp_path / "a.mlpackage"))
        gc.collect()
        interpreter.predict({"x": np.zeros(64, np.float32)}, hook)
        assert most <= 3
        assert len(alive) == 21

    def test_memory_has_a_bound(self, tmp_path):
        program = Program()
        program.output(program.op("tile", (64, 64), x=program.input("x", (1, 64)), reps=np.array([64, 1], np.int32)))
        path = program.write(tmp_path / "a.mlpackage")
        feeds = {"x": np.zeros((1, 64), np.float32)}
        Interpreter(path, max_elements=64 * 65).predict(feeds)
        with pytest.raises(ModelFileError, match="it needs more than 4159 values at once"):
            Interpreter(path, max_elements=64 * 65 - 1).predict(feeds)


def in_and_out(tmp_path, color, out=None, size=(2, 3), dtype="fp32"):
    program = Program()
    image = program.image("image", size, color)
    channels = 3 if color in ("RGB", "BGR") else 1
    y = program.op("mul", (1, channels, *size), dtype, x=image, y=np.float32(1.25))
    program.output(y, color=out)
    return Interpreter(program.write(tmp_path / "a.mlpackage"))


RGB = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14
GREY = np.arange(6, dtype=np.uint8).reshape(2, 3) * 50


class TestPictures:
    @pytest.mark.parametrize("color", ["RGB", "BGR"])
    def test_colour(self, tmp_path, color):
        interpreter = in_and_out(tmp_path, color)
        planes = RGB.transpose(2, 0, 1)[None].astype(np.float32) * 1.25
        expected = planes if color == "RGB" else planes[:, ::-1]
        for value in (RGB, Image.fromarray(RGB), RGB.astype(np.float64)):
            (got,) = interpreter.predict({"image": value}).values()
            np.testing.assert_array_equal(got, expected)

    def test_grey(self, tmp_path):
        for value in (GREY, Image.fromarray(GREY)):
            (got,) = in_and_out(tmp_path, "GRAYSCALE").predict({"image": value}).values()
            np.testing.assert_array_equal(got, GREY[None, None] * np.float32(1.25))
        half = np.array([[0.5, 1.5, -3], [1e3, 2e-4, 7]], np.float32)
        for value in (half, Image.fromarray(half)):
            (got,) = in_and_out(tmp_path, "GRAYSCALE_FLOAT16").predict({"image": value}).values()
            np.testing.assert_allclose(got, half[None, None] * 1.25, rtol=1e-6)

    @pytest.mark.parametrize("out", ["RGB", "BGR"])
    def test_a_picture_comes_out_rounded_clipped_and_rgb(self, tmp_path, out):
        (got,) = in_and_out(tmp_path, "RGB", out).predict({"image": RGB}).values()
        expected = np.clip(np.rint(RGB * 1.25), 0, 255).astype(np.uint8)
        np.testing.assert_array_equal(got, expected if out == "RGB" else expected[..., ::-1])
        assert got.dtype == np.uint8

    def test_grey_pictures_come_out(self, tmp_path):
        (got,) = in_and_out(tmp_path, "GRAYSCALE", "GRAYSCALE").predict({"image": GREY}).values()
        np.testing.assert_array_equal(got, np.clip(np.rint(GREY * 1.25), 0, 255))
        (got,) = in_and_out(tmp_path, "GRAYSCALE", "GRAYSCALE_FLOAT16").predict({"image": GREY}).values()
        assert got.dtype == np.float16
        np.testing.assert_array_equal(got, (GREY * 1.25).astype(np.float16))

    def test_what_is_no_such_picture(self, tmp_path):
        interpreter = in_and_out(tmp_path, "RGB")
        with pytest.raises(InputError, match=r"takes a picture of mode RGB, not RGBA: use \.convert\('RGB'\)"):
            interpreter.predict({"image": Image.fromarray(RGB).convert("RGBA")})
        with pytest.raises(InputError, match=r"takes a picture or an array \(H, W, 3\) RGB, not \(2, 3\) uint8"):
            interpreter.predict({"image": GREY})
        with pytest.raises(InputError, match=r"pictures of \(height, width\) \(2, 3\), not \(3, 2\)"):
            interpreter.predict({"image": RGB.transpose(1, 0, 2)})
        with pytest.raises(InputError, match="takes a picture or an array"):
            interpreter.predict({"image": "a.png"})
        grey = in_and_out(tmp_path, "GRAYSCALE")
        with pytest.raises(InputError, match=r"mode L, not RGB"):
            grey.predict({"image": Image.fromarray(RGB)})
        with pytest.raises(ModelFileError, match="is no RGB picture"):
            in_and_out(tmp_path, "GRAYSCALE", "RGB").predict({"image": GREY})


class TestArrays:
    def test_names_and_shapes(self, tmp_path):
        program = Program()
        program.output(program.op("relu", (2, 3), x=program.input("x", (2, 3))))
        interpreter = Interpreter(program.write(tmp_path / "a.mlpackage"))
        with pytest.raises(InputError, match="its inputs are 'x', and 'x' is missing"):
            interpreter.predict({})
        with pytest.raises(InputError, match="and 'y' is none of them"):
            interpreter.predict({"x": np.zeros((2, 3)), "y": 1})
        with pytest.raises(InputError, match=r"takes the shape \(2, 3\), not \(3, 2\)"):
            interpreter.predict({"x": np.zeros((3, 2))})
        with pytest.raises(InputError, match="takes numbers"):
            interpreter.predict({"x": "zero"})

    def test_an_array_of_half_precision_is_rounded_on_its_way_in(self, tmp_path):
        program = Program()
        program.output(program.op("identity", (1,), "fp16", x=program.input("x", (1,), "fp16")), "fp16")
        (got,) = Interpreter(program.write(tmp_path / "a.mlpackage")).predict({"x": np.array([1 / 3])}).values()
        assert got.dtype == np.float16
        assert got[0] == np.float16(1 / 3)

    @pytest.mark.parametrize(("dtype", "feature"), [("int32", "int32"), ("bool", "int32"), ("int8", "fp32")])
    def test_whole_numbers_come_out(self, tmp_path, dtype, feature):
        program = Program()
        x = program.input("x", (4,))
        program.output(program.op("cast", (4,), dtype, x=x, dtype=dtype), feature)
        (got,) = Interpreter(program.write(tmp_path / "a.mlpackage")).predict({"x": [0, 1.9, 2, 3]}).values()
        assert got.dtype == {"int32": np.int32, "fp32": np.float32}[feature]
        np.testing.assert_array_equal(got, [0, 1, 1, 1] if dtype == "bool" else [0, 1, 2, 3])

    def test_a_constant_and_an_input_may_be_results(self, tmp_path):
        program = Program()
        program.output(program.input("x", (2,)))
        program.output(program.const(np.array([7, 8], np.float32)))
        x, y = Interpreter(program.write(tmp_path / "a.mlpackage")).predict({"x": [1, 2]}).values()
        np.testing.assert_array_equal([x, y], [[1, 2], [7, 8]])

    def test_constants_may_stand_in_the_operation(self, tmp_path):
        program = Program()
        x = program.input("x", (2,))
        y = program.op("add", (2,), x=x, y=np.float32(0.5))
        add, const = program.block.operations[1], program.block.operations[0]
        add.inputs["y"].arguments[0].value.CopyFrom(const.attributes["val"])
        del program.block.operations[0]
        program.output(y)
        (got,) = Interpreter(program.write(tmp_path / "a.mlpackage")).predict({"x": [1, 2]}).values()
        np.testing.assert_array_equal(got, [1.5, 2.5])


class TestFlexibleShapes:
    @pytest.mark.parametrize("kind", ["range", "enumerated"])
    def test_a_network_at_two_sizes(self, ct, tmp_path, kind):
        """As coremltools converts it; each value's open sides are whatever the input makes them."""
        model = lively_model(depth=1, up="transposed")
        x = torch.rand(1, 3, 16, 24)
        if kind == "range":
            shape = ct.Shape((1, 3, ct.RangeDim(8, 64, 16), ct.RangeDim(8, 64, 24)))
        else:
            shape = ct.EnumeratedShapes([(1, 3, 16, 24), (1, 3, 32, 16)])
        program = ct.convert(
            torch.jit.trace(model, x),
            inputs=[ct.TensorType("x", shape)],
            outputs=[ct.TensorType("y")],
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.macOS14,
        )
        program.save(str(tmp_path / "a.mlpackage"))
        interpreter = Interpreter(tmp_path / "a.mlpackage")
        assert interpreter.function.inputs[0].is_flexible
        for size in ((16, 24), (32, 16)):
            value = torch.rand(1, 3, *size)
            with torch.inference_mode():
                expected = model(value).numpy()
            got = interpreter.predict({"x": value.numpy()})["y"]
            assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
        with pytest.raises(InputError, match=r"takes the shape .*, not \(1, 3, 66, 66\)"):
            interpreter.predict({"x": np.zeros((1, 3, 66, 66))})


class TestRefused:
    def load(self, tmp_path, program, message):
        with pytest.raises(ModelFileError, match=message) as caught:
            Interpreter(program.write(tmp_path / "a.mlpackage"))
        assert str(tmp_path) in str(caught.value)

    def test_unknown_operations_are_all_named(self, tmp_path):
        program = Program()
        x = program.input("x", (1,))
        for kind in ("lstm", "relu", "scaled_dot_product_attention", "gelu"):
            x = program.op(kind, (1,), x=x)
        program.output(x)
        self.load(tmp_path, program, "does not know gelu, lstm, scaled_dot_product_attention: run the package on a Mac")

    def test_control_flow_and_states(self, tmp_path):
        program = Program()
        program.output(program.op("relu", (1,), x=program.input("x", (1,))))
        program.block.operations[0].blocks.add()
        self.load(tmp_path, program, "does not know relu")
        del program.block.operations[0].blocks[:]
        program.block.operations[0].outputs[0].type.stateType.wrappedType.SetInParent()
        self.load(tmp_path, program, "does not know values of type state")

    def test_what_is_not_described(self, tmp_path):
        program = Program()
        program.output(program.op("relu", (1,), x=program.input("x", (1,))))
        program.description.output[0].name = "other"
        self.load(tmp_path, program, "the output 'v1' is not described")
        program.description.input[0].name = "other"
        self.load(tmp_path, program, "the input 'x' is not described")

    def test_a_shape_that_is_not_the_declared_one(self, tmp_path):
        program = Program()
        program.output(program.op("relu", (3,), x=program.input("x", (2,))))
        interpreter = Interpreter(program.write(tmp_path / "a.mlpackage"))
        with pytest.raises(ModelFileError, match=r"operation relu 'v1' cannot be executed \(it computes the shape"):
            interpreter.predict({"x": [1, 2]})

    def test_an_input_that_is_described_otherwise(self, tmp_path):
        program = Program()
        program.output(program.input("x", (2,)))
        program.function.inputs[0].type.tensorType.dimensions[0].constant.size = 3
        interpreter = Interpreter(program.write(tmp_path / "a.mlpackage"))
        with pytest.raises(ModelFileError, match="and described otherwise"):
            interpreter.predict({"x": [1, 2]})

    def test_a_dtype_that_a_cast_does_not_declare(self, tmp_path):
        program = Program()
        program.output(program.op("cast", (1,), "fp32", x=program.input("x", (1,)), dtype="int32"))
        interpreter = Interpreter(program.write(tmp_path / "a.mlpackage"))
        with pytest.raises(ModelFileError, match="its parameter dtype is none of fp32"):
            interpreter.predict({"x": [1]})
