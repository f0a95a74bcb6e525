"""All that can be wrong with a data set, said at once and before training."""

from __future__ import annotations

from pathlib import Path

from unet_edge_runtime.errors import DatasetError
from unet_edge_runtime.spec import MaskValue

from .looking import Progress
from .pairing import Pair, pair_files
from .scan import Scan, scan_pairs

__all__ = ["prepare"]


def prepare(
    images: Path,
    masks: Path,
    mask_suffix: str | None = None,
    ignore: MaskValue | None = None,
    max_classes: int = 64,
    progress: Progress | None = None,
) -> tuple[list[Pair], Scan]:
    """Pair and scan a data set.

    Args:
        images: folder of the images.
        masks: folder of the masks, which may be the same.
        mask_suffix: what follows an image's stem in its mask's; found out by default.
        ignore: the mask value that does not count.
        max_classes: more mask values than this are taken for a mistake.
        progress: draws a bar, such as `cli.common.track`.

    Raises:
        DatasetError: with all problems of pairing and of the files.
    """
    pairs, problems = pair_files(images, masks, mask_suffix)
    scan = scan_pairs(pairs, ignore=ignore, max_classes=max_classes, progress=progress)
    if problems or scan.problems:
        raise DatasetError([*problems, *scan.problems])
    return pairs, scan
