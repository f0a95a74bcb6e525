"""What can go wrong that a user can cause or cure.

    UnetEdgeError
    ├── InputError           an image, a mask, a path or a value that cannot be used
    │   └── DatasetError     all problems of a data set, together
    ├── ModelFileError       a checkpoint or artefact that is damaged, foreign or inconsistent
    ├── BackendError         this backend cannot run here, or not this model
    │   ├── MissingExtraError   an optional package is not installed
    │   └── OutOfMemoryError    the device's memory does not hold what the model needs for this input
    ├── AgreementError       two paths that must agree do not
    └── TrainingError        training cannot go on

The command line prints `str(error)` as it is and exits with 1, so a message says what happened, to
which file, and what to do about it.
"""

from __future__ import annotations

__all__ = [
    "AgreementError",
    "BackendError",
    "DatasetError",
    "InputError",
    "MissingExtraError",
    "ModelFileError",
    "OutOfMemoryError",
    "TrainingError",
    "UnetEdgeError",
]


class UnetEdgeError(Exception):
    """Root of every error that this project raises on purpose."""


class InputError(UnetEdgeError):
    """An image, a mask, a path or a value given by the user cannot be used."""


class DatasetError(InputError):
    """A data set has problems.

    Args:
        problems: one line a problem, each naming its file and a remedy.
        limit: how many of them the message shows; `problems` keeps all.
    """

    def __init__(self, problems: list[str], limit: int = 20) -> None:
        self.problems = problems
        count = len(problems)
        lines = [f"the data set has {count} problem{'s' if count > 1 else ''}:"]
        lines += [f"  - {problem}" for problem in problems[:limit]]
        if count > limit:
            lines.append(f"  ... and {count - limit} more: `unet-edge data check` lists all")
        super().__init__("\n".join(lines))


class ModelFileError(UnetEdgeError):
    """A checkpoint or artefact is damaged, foreign or inconsistent."""


class BackendError(UnetEdgeError):
    """A backend cannot run here, or not this model."""


class MissingExtraError(BackendError):
    """An optional package is missing.

    Args:
        package: the package that could not be imported.
        extra: the extra of unet-edge that brings it.
        purpose: what it is needed for.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'unet-edge[{extra}]'")


class OutOfMemoryError(BackendError):
    """The device's memory does not hold what the model needs for this input; a smaller one may fit."""


class AgreementError(UnetEdgeError):
    """Two paths that must compute the same do not."""


class TrainingError(UnetEdgeError):
    """Training cannot go on; the message says what was kept and how to continue."""
