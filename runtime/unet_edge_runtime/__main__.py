"""`python -m unet_edge_runtime MODEL IMAGE...`: masks from an exported model, on the smallest installation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .errors import UnetEdgeError
from .segmenter import Segmenter
from .targets import mask_targets


def main(arguments: list[str] | None = None) -> int:
    """Write `<stem>_OUT.png` for each image; 0, or 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m unet_edge_runtime", description=__doc__)
    parser.add_argument("model", type=Path, help="an exported model")
    parser.add_argument("images", type=Path, nargs="+", help="images to segment")
    parser.add_argument("-o", "--output", type=Path, help="folder for the masks; by default beside each image")
    options = parser.parse_args(arguments)
    failed = 0
    try:
        segmenter = Segmenter.open(options.model)
        targets = mask_targets(options.images, [options.output] if options.output else [])
    except UnetEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for image, target in zip(options.images, targets, strict=True):
        try:
            segmenter.segment(image).save(target)
            print(target)
        except UnetEdgeError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
