"""Run a model and keep its outputs, to be compared later or elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unet_edge_bench.machine import machine_facts
from unet_edge_runtime.errors import InputError, UnetEdgeError
from unet_edge_runtime.files import atomic_path, write_json
from unet_edge_runtime.spec import ModelSpec

from .saved import INDEX, SCHEMA, SavedOutputs, read_output
from .sides import Model, Output, Sample, Side

__all__ = ["Progress", "Recording", "collect", "record"]

LIST_EVERY = 2.0  # seconds between two indices: what a killed process loses at most

Progress = Callable[[Sequence[Sample]], Iterable[Sample]]
"""Wraps what is gone through, for a progress bar."""


class Recording(Side):
    """A model whose outputs are written as they come; those that are there already are not run again.

    Args:
        model: what runs.
        folder: for the outputs; one of an earlier run of the same model goes on.

    Raises:
        InputError: the folder holds outputs of another model, machine or version, or cannot be written to.
    """

    def __init__(self, model: Model, folder: Path) -> None:
        self.model: Model = model
        self.folder, self.name, self.spec = folder, model.name, model.spec
        self._sizes: dict[str, tuple[str, tuple[int, int]]] = {}
        self._views: dict[Model, Recording] = {model: self}
        self._listed = -LIST_EVERY
        if (folder / INDEX).exists():
            self._go_on(SavedOutputs(folder))
        elif folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no {INDEX}: choose another folder for the outputs")

    def _go_on(self, before: SavedOutputs) -> None:
        was, now = before.facts(), self.model.facts()
        same = all(was[key] == now[key] for key in ("sha256", "backend", "compute_units"))
        if not same or before.spec.to_json() != self.spec.to_json():
            raise InputError(f"{self.folder} holds the outputs of another model ({before.name}): choose another folder")
        if before.machine != machine_facts():
            raise InputError(f"{self.folder} was made on another machine or with other versions: choose another folder")
        self._sizes = {digest: (before.names[digest], size) for digest, size in before.images.items()}

    def output(self, sample: Sample) -> Output:
        """Run the image, or load what is there."""
        path = self.folder / f"{sample.sha256}.npz"
        if sample.sha256 in self._sizes and path.is_file():
            size = self._sizes[sample.sha256][1]
            return Output(read_output(path, self.spec, size), size)
        output = self.model.output(sample)
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, output=np.ascontiguousarray(output.values))
        self._sizes[sample.sha256] = (sample.name, output.size)
        if time.monotonic() > self._listed + LIST_EVERY:
            self.close()
        return output

    def facts(self) -> dict[str, Any]:
        """The model's."""
        return self.model.facts()

    def like(self, spec: ModelSpec) -> Recording:
        """As the model's; outputs of another input size go to a folder of their own."""
        view = self.model.like(spec)
        if view not in self._views:
            spec = view.spec
            parts = ["x".join(map(str, size or ())) for size in spec.input_sizes or (spec.input_size,)]
            parts += [spec.head] if spec.head != self.spec.head else []
            self._views[view] = Recording(view, self.folder.with_name("-".join([self.folder.name, *parts])))
        return self._views[view]

    def ran_otherwise(self, size: tuple[int, int]) -> bool:
        """As the model's."""
        return self.model.ran_otherwise(size)

    def close(self) -> None:
        """Write the index, if there is anything to list."""
        if not self._sizes:
            return
        images = [{"name": n, "sha256": digest, "size": list(size)} for digest, (n, size) in self._sizes.items()]
        content = {"model": self.facts(), "spec": self.spec.to_dict(), "machine": machine_facts(), "images": images}
        write_json(self.folder / INDEX, {"schema": SCHEMA, **content})
        self._listed = time.monotonic()


def collect(model: Model, samples: Sequence[Sample], folder: Path, progress: Progress = iter) -> SavedOutputs:
    """Run a model over images and keep the outputs; an interrupted run goes on where it was.

    Args:
        model: what to run.
        samples: the images.
        folder: gets `outputs.json` and a compressed file an image.
        progress: wraps the samples, for a progress bar.

    Returns:
        The outputs, ready to be compared in this process or another.

    Raises:
        InputError: an image could not be run, after all others were.
    """
    failures = record(Recording(model, folder), samples, progress)
    if failures:
        raise InputError("; ".join(failures))
    return SavedOutputs(folder)


def record(recording: Recording, samples: Sequence[Sample], progress: Progress = iter) -> list[str]:
    """Run what is not there yet; a line for each image that could not be run."""
    failures = []
    try:
        for sample in progress(samples):
            try:
                recording.output(sample)
            except UnetEdgeError as error:
                failures.append(str(error))
    finally:
        recording.close()
    return failures
