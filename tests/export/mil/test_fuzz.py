"""Thousands of damaged packages: always our own error, or a result; never a crash, a hang or a flood of memory."""

from __future__ import annotations

import json
import os
import random
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from unet_edge_export.mil import Interpreter
from unet_edge_export.mil.operations import OPERATIONS
from unet_edge_export.mil.schema import Model
from unet_edge_runtime.errors import UnetEdgeError

from .conftest import tiny_program

SLOWEST = 20.0  # seconds for one of them, on a machine that does other things too
MEMORY = 512  # MiB that all of them together may add
PARTS = ("Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin")
NUMBERS = (0, 1, -1, 2, 3, 4, 5, 7, 8, 64, 128, 255, 256, 65535, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 63) - 1)
TEXTS = ["", "x" * 3000, "\n", "main", "fp16", "int32", "uint8", "same", "custom", "valid", "@model_path/../x"]


def flip_bits(content, generator):
    content = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 8))):
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    return bytes(content)


def truncate(content, generator):
    return content[: generator.randrange(len(content))]


def overwrite(content, generator):
    start = generator.randrange(len(content))
    return content[:start] + generator.randbytes(generator.choice((1, 4, 8, 64))) + content[start:]


def move(content, generator):
    a, b = sorted(generator.randrange(len(content)) for _ in range(2))
    return content[:a] + content[b:] + content[a:b]


def slots(message):
    """Every place in a message that holds a value: (container, key or field, kind)."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in list(value):
                if field.message_type.fields_by_name["value"].message_type is not None:
                    yield from slots(value[key])
        elif field.is_repeated and field.message_type is not None:
            yield value, None, "list"
            for each in value:
                yield from slots(each)
        elif field.is_repeated:
            for index in range(len(value)):
                yield value, index, field
        elif field.message_type is not None:
            yield message, field.name, "message"
            yield from slots(value)
        else:
            yield message, field.name, field


def change(model, generator, names):
    """Change one value: another number, another name, another operation; or drop or double a part."""
    container, key, kind = generator.choice(list(slots(model)))
    if kind == "list":
        if len(container):
            index = generator.randrange(len(container))
            if generator.random() < 0.5:
                del container[index]
            else:
                container.add().CopyFrom(container[index])
        return
    if kind == "message":
        container.ClearField(key)
        return
    old = container[key] if isinstance(key, int) else getattr(container, key)
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, int):
        new = generator.choice((*NUMBERS, old + 1, old - 1, old * 2, -old))
    elif isinstance(old, float):
        new = generator.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), old * 2, 1 << 20))
    elif isinstance(old, bytes):
        new = flip_bits(old, generator) if old and generator.random() < 0.7 else old[:-1]
    else:
        new = generator.choice((*TEXTS, *names, *OPERATIONS))
    try:
        if isinstance(key, int):
            container[key] = new
        else:
            setattr(container, key, new)
    except ValueError:
        return  # out of the field's range: there is no such file


class Victim:
    """A package on disk whose parts can be replaced."""

    def __init__(self, folder):
        self.path = tiny_program().write(folder / "tiny.mlpackage")
        self.parts = {name: (self.path / name).read_bytes() for name in PARTS}
        self.model = Model.FromString(self.parts[PARTS[1]])
        function = self.model.mlProgram.functions["main"]
        block = next(iter(function.block_specializations.values()))
        self.names = [operation.outputs[0].name for operation in block.operations]

    def put(self, name, content):
        # Replaced rather than rewritten: an old mapping of the file must not see it shrink.
        temporary = self.path.parent / "part"
        temporary.write_bytes(content)
        os.replace(temporary, self.path / name)

    def run(self):
        """Load and execute; returns whether there was a result. Only our own errors are caught."""
        text = ""
        try:
            interpreter = Interpreter(self.path, precision="stored")
            feeds = {}
            for feature in interpreter.function.inputs:
                if np.prod(feature.shape, dtype=np.float64) > 1e5:
                    return False
                sides = (*feature.shape, 3) if feature.channels == 3 and feature.kind == "image" else feature.shape
                feeds[feature.name] = np.ones(sides, np.float32)
            interpreter.predict(feeds)
        except UnetEdgeError as error:
            text = str(error)
            # One line that names the package and what to do.
            good = str(self.path) in text and "\n" not in text and len(text) < 4000 and text.count(": ") > 1
        else:
            good = True
        assert good, text
        return not text


@pytest.fixture
def victim(tmp_path):
    found = Victim(tmp_path)
    assert found.run()
    return found


@pytest.fixture(autouse=True)
def bounded():
    """Memory grows by no more than `MEMORY` during a test."""
    resource = pytest.importorskip("resource", reason="memory cannot be measured here")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit - before < MEMORY


def attack(victim, cases, seed, damage):
    """Damage, run, restore, `cases` times; returns how many still gave a result."""
    generator = random.Random(seed)
    alive, slowest = 0, 0.0
    for _ in range(cases):
        name, content = damage(generator)
        victim.put(name, content)
        start = time.perf_counter()
        alive += victim.run()
        slowest = max(slowest, time.perf_counter() - start)
        victim.put(name, victim.parts[name])
    assert slowest < SLOWEST
    return alive


@pytest.mark.parametrize("how", [flip_bits, truncate, overwrite, move])
@pytest.mark.parametrize(("part", "cases"), [(PARTS[0], 40), (PARTS[1], 200), (PARTS[2], 100)])
def test_bytes(victim, how, part, cases):
    attack(victim, cases, f"{how.__name__} {part}", lambda g: (part, how(victim.parts[part], g)))


@pytest.mark.parametrize("seed", range(4))
def test_values(victim, seed):
    """One to four well-formed changes: these get past the parser, and many past the loader."""

    def damage(generator):
        model = Model()
        model.CopyFrom(victim.model)
        for _ in range(generator.choice((1, 1, 1, 2, 4))):
            change(model, generator, victim.names)
        return PARTS[1], model.SerializeToString()

    alive = attack(victim, 300, seed, damage)
    assert 0 < alive < 300


@pytest.mark.parametrize("seed", range(2))
def test_parameters(victim, seed):
    """Only the numbers that operations take are changed: every kernel meets hostile ones."""

    def damage(generator):
        model = Model()
        model.CopyFrom(victim.model)
        block = next(iter(model.mlProgram.functions["main"].block_specializations.values()))
        constants = [each.attributes["val"].immediateValue.tensor for each in block.operations if each.type == "const"]
        for tensor in generator.sample(constants, generator.choice((1, 1, 2))):
            field = tensor.WhichOneof("value")
            if field == "ints":
                values = tensor.ints.values
                values[generator.randrange(len(values))] = generator.choice(NUMBERS[:16])
            elif field == "floats":
                tensor.floats.values[0] = generator.choice((0.0, -2.0, 1e9, 60000.0, float("nan"), 1e-30, 3.0))
            elif field == "bytes":
                tensor.bytes.values = generator.randbytes(len(tensor.bytes.values))
        if generator.random() < 0.3:
            running = [each for each in block.operations if each.type in OPERATIONS]
            generator.choice(running).type = generator.choice(list(OPERATIONS))
        return PARTS[1], model.SerializeToString()

    alive = attack(victim, 300, seed, damage)
    assert 0 < alive < 300


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("replacement", ["nothing", "folder", "empty", "link", "zeros"])
def test_files(victim, part, replacement):
    file: Path = victim.path / part
    file.unlink()
    if replacement == "folder":
        file.mkdir()
    elif replacement == "empty":
        file.touch()
    elif replacement == "link":
        file.symlink_to("/dev/zero")
    elif replacement == "zeros":
        file.write_bytes(bytes(10_000))
    assert not victim.run()


@pytest.mark.parametrize("cases", [200])
def test_manifests(victim, cases):
    """Well-formed JSON with anything in it."""
    values = [None, 0, "", "..", "/", [], {}, [[]], {"path": "."}, {"path": "../x"}, 1e308, "id", True, "\u0000"]

    def damage(generator):
        manifest = json.loads(victim.parts[PARTS[0]])
        owner = generator.choice((manifest, manifest["itemInfoEntries"], manifest["itemInfoEntries"]["id"]))
        owner[generator.choice(list(owner))] = generator.choice(values)
        return PARTS[0], json.dumps(manifest).encode()

    attack(victim, cases, 0, damage)


def deep(depth):
    """A type inside a type inside a type: deeper than any parser's stack."""
    content = b"\x0a\x04\x08\x0b\x10\x00"
    for _ in range(depth):
        content = (
            b"\x2a" + _varint(len(content) + 1 + len(_varint(len(content)))) + b"\x0a" + _varint(len(content)) + content
        )
    return content


def _varint(number):
    content = b""
    while number > 127:
        content += bytes([number & 127 | 128])
        number >>= 7
    return content + bytes([number])


@pytest.mark.parametrize("depth", [10, 100, 10_000])
def test_nesting(victim, depth):
    """`depth` state types around each other, as the type of the program's input."""
    kind = deep(depth)
    named = b"\x0a\x01z\x12" + _varint(len(kind)) + kind
    function = b"\x0a" + _varint(len(named)) + named
    entry = b"\x0a\x04main\x12" + _varint(len(function)) + function
    program = b"\x12" + _varint(len(entry)) + entry
    victim.put(PARTS[1], b"\xb2\x1f" + _varint(len(program)) + program)
    assert not victim.run()


@pytest.mark.parametrize("what", ["operations", "functions", "features", "dimensions", "strings"])
def test_millions_of_empty_parts(victim, what):
    """Two bytes each in the file, and far more in memory if they were all read."""
    empty = {"operations": b"\x1a\x00", "dimensions": b"\x1a\x00", "strings": b"\x12\x00"}.get(
        what, b"\x0a\x00"
    ) * 2_000_000
    if what == "features":
        victim.put(PARTS[1], b"\xb2\x1f\x00\x12" + _varint(len(empty)) + empty)
    elif what == "functions":
        victim.put(PARTS[1], b"\xb2\x1f" + _varint(len(empty) * 2) + b"\x12\x00" * len(empty))
    else:
        block = b"\x12" + _varint(len(empty)) + empty
        named = b"\x1a" + _varint(len(block)) + block
        entry = b"\x0a\x04main\x12" + _varint(len(named)) + named
        program = b"\x12" + _varint(len(entry)) + entry
        victim.put(PARTS[1], b"\xb2\x1f" + _varint(len(program)) + program)
    assert not victim.run()
