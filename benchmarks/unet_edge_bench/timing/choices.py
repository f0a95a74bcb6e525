"""What a user wants measured, and the rows that follow: every model with every choice that makes sense for it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unet_edge_bench.machine import physical_cores
from unet_edge_bench.process import Child
from unet_edge_runtime.backend import backend_for
from unet_edge_runtime.errors import BackendError, InputError
from unet_edge_runtime.segmenter import padded_size
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.transform import scaled_size

from .labels import labelled
from .pictures import Pictures
from .plan import Row

__all__ = ["Choices", "Model", "Size", "describe", "rows_of"]

MAX_ROWS = 96
"""All rows' processes live at the same time."""

COMPUTE_UNITS = ("cpu", "gpu", "ane", "all")
PATIENCE = 300.0  # seconds that opening a model once may take
ELSEWHERE = "Core ML runs on macOS only: here its outputs are computed and compared, not timed"

Size = tuple[int, int]


@dataclass(frozen=True)
class Choices:
    """The matrix.

    Attributes:
        models: files; the reference is the first unless named.
        sizes: (height, width) of the network's input; empty for the image as it is.
        batches: images a call.
        threads: inside one operation; empty for the machine's physical cores.
        streams: Python threads that use a model at the same time.
        precisions: of checkpoints; other models have their own.
        compute_units: of Core ML packages on a Mac.
        device: for checkpoints.
        reference: what the others are compared with.
    """

    models: tuple[Path, ...]
    sizes: tuple[Size, ...] = ()
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = ()
    streams: tuple[int, ...] = (1,)
    precisions: tuple[str, ...] = ("fp32",)
    compute_units: tuple[str, ...] = COMPUTE_UNITS
    device: str = "cpu"
    reference: Path | None = None

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """Those given, or one that suits this machine."""
        return self.threads or (physical_cores(),)


@dataclass(frozen=True)
class Model:
    """A model with one choice of what decides its outputs: these are compared with the reference's.

    Attributes:
        path: the file.
        backend: that runs it here.
        options: for the backend.
        precision: asked for, or None.
        compute_units: of Core ML, or None.
        spec: what the model says about itself; None where it cannot be opened.
        proves: what its outputs stand for where that is not the runtime itself.
        problem: why it cannot be opened.
        untimed: why its time would say nothing; empty for most.
    """

    path: Path
    backend: str
    options: dict[str, Any]
    precision: str | None = None
    compute_units: str | None = None
    spec: ModelSpec | None = None
    proves: str = ""
    problem: str = ""
    untimed: str = ""

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Those that the graph takes; empty for any."""
        if self.spec is None or self.spec.input_size is None:
            return ()
        return self.spec.input_sizes or (self.spec.input_size,)


def describe(choices: Choices) -> list[Model]:
    """Open every model once, in a process of its own, the reference first. What cannot be opened says why.

    Raises:
        InputError, ModelFileError: a model, or the reference, is missing or of an unknown kind.
    """
    models = [model for path in _in_order(choices) for model in _variants(path, choices)]
    return [_described(model) for model in models]


def rows_of(models: Sequence[Model], choices: Choices, pictures: Pictures) -> list[tuple[Model, Row]]:
    """All rows, each with its model.

    Raises:
        InputError: too many rows, or a picture cannot be made.
    """
    found = list(_combined(models, choices, pictures))
    if len(found) > MAX_ROWS:
        raise InputError(f"{len(found)} rows are too many for one run (most: {MAX_ROWS}): give fewer choices")
    rows = labelled([row for _, row in found])
    return [(model, row) for (model, _), row in zip(found, rows, strict=True)]


def _in_order(choices: Choices) -> list[Path]:
    reference = choices.reference
    if reference is None:
        return list(choices.models)
    return [reference, *(path for path in choices.models if path != reference)]


def _variants(path: Path, choices: Choices) -> Iterator[Model]:
    name = backend_for(path)
    if name == "torch":
        for precision in choices.precisions:
            yield Model(path, name, {"device": choices.device, "precision": precision}, precision)
    elif name == "coreml" and sys.platform == "darwin":
        for units in choices.compute_units:
            yield Model(path, name, {"compute_units": units}, compute_units=units)
    elif name == "coreml":
        yield Model(path, "coreml-ref", {}, untimed=ELSEWHERE)
    else:
        yield Model(path, name, {})


def _described(model: Model) -> Model:
    try:
        with Child("unet_edge_bench.timing.worker", 1) as child:
            answer = child.ask(
                PATIENCE, do="describe", path=str(model.path), backend=model.backend, options=model.options
            )
    except BackendError as error:
        return replace(model, problem=str(error))
    return replace(model, spec=ModelSpec.from_json(answer["spec"], str(model.path)), proves=answer["proves"])


def _combined(models: Sequence[Model], choices: Choices, pictures: Pictures) -> Iterator[tuple[Model, Row]]:
    for model in models:
        # Core ML chooses its threads itself.
        threads = choices.thread_counts[:1] if model.compute_units else choices.thread_counts
        sizes: tuple[Size | None, ...] = choices.sizes or (None,)
        for size, batch, count, streams in itertools.product(sizes, choices.batches, threads, choices.streams):
            image, refused = _image(model, size, pictures)
            yield (
                model,
                Row(
                    id="",
                    path=model.path,
                    backend=model.backend,
                    image=image,
                    threads=count,
                    batch=batch,
                    streams=streams,
                    size=size or _network_size(model, pictures.size_of(image)),
                    options=model.options,
                    precision=model.precision,
                    compute_units=model.compute_units,
                    untimed=model.untimed,
                    refused="" if model.untimed else refused,
                ),
            )


def _image(model: Model, size: Size | None, pictures: Pictures) -> tuple[Path, str]:
    """The picture to time, and why this model cannot take the size."""
    if model.spec is None:
        return pictures.plain(), model.problem
    if size is None:
        return pictures.plain(), ""
    text = f"{size[0]}x{size[1]}"
    if model.sizes and size not in model.sizes:
        takes = " or ".join(f"{height}x{width}" for height, width in model.sizes)
        return pictures.plain(), f"takes {takes} only, not {text}: export it with --size {text}"
    multiple = model.spec.multiple
    if size[0] % multiple or size[1] % multiple:
        return pictures.plain(), f"sides must be multiples of {multiple}, {text} are not"
    return pictures.fitted(size, model.spec), ""


def _network_size(model: Model, image: Size) -> Size | None:
    """Of the network's input for an image: the fixed size that holds it, else padded to the multiple."""
    if model.spec is None:
        return None
    height, width = scaled_size(image, model.spec.scale)
    if not model.sizes:
        return padded_size((height, width), model.spec.multiple)
    sizes = sorted(model.sizes, key=lambda size: size[0] * size[1])
    return next((size for size in sizes if size[0] >= height and size[1] >= width), sizes[-1])
