"""Speed only counts with agreement: each model against the reference on the same images, as `unet-edge verify` does.

    python -m unet_edge_bench.timing.quality

Every comparison runs in a process of its own, so that a runtime which crashes takes only its own verdict with it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_edge_bench.process import Child, answer_stream
from unet_edge_runtime.errors import BackendError, InputError

from .choices import Model
from .worker import open_backend

__all__ = ["Images", "judge"]

PATIENCE = 3600.0  # seconds for all images; the reference interpreter takes seconds for each

_LEFT_OUT = ("reference", "candidate", "images", "layers", "scores")


@dataclass(frozen=True)
class Images:
    """Images to compare on.

    Attributes:
        files: the images, or the drawn picture.
        masks: one an image, or empty.
    """

    files: tuple[Path, ...]
    masks: tuple[Path, ...] = ()


def judge(reference: Model, candidate: Model, images: Images, threads: int) -> dict[str, Any]:
    """Compare a candidate's outputs with the reference's, and both with the masks.

    Args:
        reference: taken for right.
        candidate: judged; the reference itself gets scores alone.
        images: to compare on.
        threads: for both.

    Returns:
        `agreement` and `scores` as in the results; without `reference`, the row's id, which only the caller knows.
        A comparison that could not be made is one that is not passed.

    Raises:
        InputError: the reference cannot be scored: then nothing can, and the masks are to blame, or the images.
    """
    same = reference == candidate
    if same and not images.masks:
        return {"agreement": None, "scores": None}
    request = {
        "models": [_request(model) for model in ([reference] if same else [reference, candidate])],
        "images": [str(path) for path in images.files],
        "masks": [str(path) for path in images.masks],
        "threads": threads,
    }
    try:
        with Child(__name__, threads) as child:
            answer = child.ask(PATIENCE, do="judge", **request)
    except BackendError as error:
        if same:
            raise InputError(f"the reference cannot be scored: {error}") from None
        failed = {"passed": False, "problems": [f"could not be compared: {error}"]}
        return {"agreement": failed, "scores": None}
    return {"agreement": None if same else answer["agreement"], "scores": answer["scores"]}


def main() -> int:
    """Serve until standard input ends."""
    return answer_stream(_compare)


def _request(model: Model) -> dict[str, Any]:
    return {"name": model.backend, "path": str(model.path), "options": model.options}


def _compare(request: dict[str, Any]) -> dict[str, Any]:
    from unet_edge_bench.verify.compare import compare
    from unet_edge_bench.verify.sides import Model as Side
    from unet_edge_bench.verify.sides import samples_of
    from unet_edge_runtime.segmenter import Segmenter

    sides = [Side(Segmenter(_open(model, request["threads"]))) for model in request["models"]]
    masks = [Path(path) for path in request["masks"]]
    samples = samples_of([Path(path) for path in request["images"]], masks or None)
    found = compare(sides[0], sides[-1:], samples)
    return _answer(found.pairs[0].to_dict(), found.failures)


def _open(model: Mapping[str, Any], threads: int) -> Any:
    return open_backend(model["name"], Path(model["path"]), dict(model["options"]), threads)


def _answer(pair: Mapping[str, Any], failures: Sequence[str]) -> dict[str, Any]:
    agreement = {key: value for key, value in pair.items() if key not in _LEFT_OUT}
    agreement["compared_images"] = len(pair["images"])
    agreement["failures"] = [*pair["failures"], *failures]
    agreement["problems"] = [*pair["problems"], *pair["failures"]]
    scores = pair["scores"]
    if scores is None:
        return {"agreement": agreement, "scores": None}
    told = {"difference": scores["difference"], "failures": agreement["failures"]}
    return {"agreement": agreement, "scores": {**scores["candidate"], **told}}


if __name__ == "__main__":
    sys.exit(main())
