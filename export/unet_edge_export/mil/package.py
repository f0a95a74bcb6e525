"""A Core ML package on disk: manifest, model description, program, weights.

Packages come from anywhere. Nothing in one is trusted: paths stay inside it, sizes are bounded before anything is
allocated, and whatever does not fit together is a `ModelFileError`.
"""

from __future__ import annotations

import functools
import json
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]

from unet_edge_runtime.errors import ModelFileError
from unet_edge_runtime.spec import METADATA_KEY, ModelSpec

from .features import Feature, read_features
from .program import Function, read_function
from .schema import Model
from .values import shown
from .weights import WeightFile, damaged

__all__ = ["Package"]

MAX_MANIFEST = 1 << 20  # bytes; real ones have six hundred
MAX_PROGRAM = 1 << 24  # bytes; that of the 31 M network has forty thousand, its weights are not in it
MAX_FUNCTIONS = 256

_MODEL_PATH = "@model_path/"


class Package:
    """An open package. Functions and weights are read when asked for.

    Args:
        path: the .mlpackage folder.

    Attributes:
        path: the folder.
        model: the protobuf message of its `model.mlmodel`.

    Raises:
        ModelFileError: missing, damaged, hostile, or no ML Program.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ModelFileError(f"{self.path}: no such Core ML package")
        self._program_path = self._root_model()
        program = self._read(self._program_path, MAX_PROGRAM)
        try:
            self.model: Any = Model.FromString(program)
        except (DecodeError, ValueError) as error:
            raise damaged(self.path, f"{self._program_path.name} is not a Core ML model ({error})") from None
        if self.model.WhichOneof("Type") != "mlProgram":
            raise ModelFileError(
                f"{self.path}: holds no ML Program (an older neural network, a pipeline, or damaged): "
                "convert it as mlprogram, for iOS 15 or later"
            )
        if len(self.model.mlProgram.functions) > MAX_FUNCTIONS:
            raise damaged(self.path, f"it has {len(self.model.mlProgram.functions)} functions")
        self._program_bytes = len(program)
        self._weights: dict[str, WeightFile] = {}
        self._functions: dict[str, Function] = {}

    @classmethod
    def open(cls, path: Path | str) -> Package:
        """Open a package; as the constructor."""
        return cls(path)

    @property
    def spec_version(self) -> int:
        """Core ML's specification version: 6 iOS 15, 7 iOS 16, 8 iOS 17, 9 iOS 18, 10 iOS 26."""
        return int(self.model.specificationVersion)

    @property
    def functions(self) -> list[str]:
        """Names of the program's functions, sorted; the default one first."""
        names = sorted(self.model.mlProgram.functions)
        return sorted(names, key=lambda name: name != self.default_function)

    @property
    def default_function(self) -> str:
        """The function that runs when none is named."""
        names = sorted(self.model.mlProgram.functions)
        declared = self.model.description.defaultFunctionName or "main"
        return declared if declared in names or not names else names[0]

    @property
    def stored_bytes(self) -> int:
        """Size of the program and of the weight files opened so far."""
        return self._program_bytes + sum(file.size for file in self._weights.values())

    @property
    def metadata(self) -> dict[str, str]:
        """User-defined metadata."""
        return dict(self.model.description.metadata.userDefined)

    @property
    def author(self) -> str:
        """Who made it."""
        return str(self.model.description.metadata.author)

    @property
    def license(self) -> str:
        """Under which terms."""
        return str(self.model.description.metadata.license)

    @property
    def version(self) -> str:
        """The author's version of the model."""
        return str(self.model.description.metadata.versionString)

    @property
    def short_description(self) -> str:
        """What it does."""
        return str(self.model.description.metadata.shortDescription)

    @functools.cached_property
    def model_spec(self) -> ModelSpec | None:
        """The spec that unet-edge embeds, or None in a package of other origin.

        Raises:
            ModelFileError: it is there and damaged.
        """
        text = self.metadata.get(METADATA_KEY)
        return None if text is None else ModelSpec.from_json(text, str(self.path))

    def function(self, name: str = "") -> Function:
        """One function of the program; the default one where no name is given.

        Raises:
            ModelFileError: there is none of that name, or it is inconsistent.
        """
        name = name or self.default_function
        if name not in self._functions:
            functions = self.model.mlProgram.functions
            if name not in functions:
                known = ", ".join(shown(each) for each in self.functions[:8]) or "none"
                raise ModelFileError(f"{self.path}: has no function {shown(name)}: its functions are {known}")
            features = self._features(name)
            self._functions[name] = read_function(functions[name], name, features, self.path, self.weight_file)
        return self._functions[name]

    def weight_file(self, reference: str) -> WeightFile:
        """Open a weight file by the name that the program uses, such as "@model_path/weights/weight.bin".

        Raises:
            ModelFileError: it is missing, leads outside the package, or is no weight file.
        """
        if reference not in self._weights:
            if not reference.startswith(_MODEL_PATH):
                raise damaged(self.path, f"the weight file {shown(reference)} has no path inside the package")
            file = self._inside(self._program_path.parent, reference.removeprefix(_MODEL_PATH))
            self._weights[reference] = WeightFile(file, self.path)
        return self._weights[reference]

    def _features(self, name: str) -> tuple[tuple[Feature, ...], tuple[Feature, ...]]:
        description = self.model.description
        owner = next((each for each in description.functions if each.name == name), description)
        if len(owner.input) > 64 or len(owner.output) > 64:
            raise damaged(self.path, f"it has {len(owner.input)} inputs and {len(owner.output)} outputs")
        return read_features(owner.input, self.path), read_features(owner.output, self.path)

    def _root_model(self) -> Path:
        """The file that the manifest names as the model."""
        text = self._read(self._inside(self.path, "Manifest.json"), MAX_MANIFEST)
        try:
            manifest = json.loads(text)
            relative = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"[:120]
            raise damaged(self.path, f"Manifest.json does not name a model ({reason})") from None
        if not isinstance(relative, str):
            raise damaged(self.path, "Manifest.json does not name a model (its path is no text)")
        return self._inside(self.path / "Data", relative)

    def _inside(self, base: Path, relative: str) -> Path:
        """A regular file below `base`, after all links, inside this package."""
        parts = PurePosixPath(relative)
        if not relative or parts.is_absolute() or ".." in parts.parts or "\0" in relative or "\\" in relative:
            raise damaged(self.path, f"the path {shown(relative)} leads outside the package")
        try:
            resolved = (base / relative).resolve()
            inside = resolved.is_relative_to(self.path.resolve())
            if inside and not stat.S_ISREG(resolved.stat().st_mode):
                raise damaged(self.path, f"{shown(relative)} is no file")
        # A loop of links is a RuntimeError before Python 3.13.
        except (OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise damaged(self.path, f"{shown(relative)} cannot be opened ({reason})") from None
        if not inside:
            raise damaged(self.path, f"the path {shown(relative)} leads outside the package")
        return resolved

    def _read(self, path: Path, limit: int) -> bytes:
        try:
            with path.open("rb") as stream:
                content = stream.read(limit + 1)
        except OSError as error:
            raise damaged(self.path, f"{path.name} cannot be read ({error.strerror})") from None
        if len(content) > limit:
            raise damaged(self.path, f"{path.name} is larger than {limit >> 20} MiB")
        return content
