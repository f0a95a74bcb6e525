"""A real data set for trying things out: axial brain MRI slices, from data files inside the package nilearn."""

from __future__ import annotations

import gzip
import importlib.util
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import atomic_path

from .looking import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SAMPLE_CLASSES", "make_brain_sample"]

SAMPLE_CLASSES = ("outside", "other", "grey matter", "white matter")
"""Names of the mask values 0 to 3."""

LEAST_TISSUE = 1500  # voxels of grey and white matter that a slice needs to be kept
MAJORITY = 128  # of 255: more likely this tissue than not
MAX_VOXELS = 1 << 26
VALIDATION_BLOCK = (0.4, 0.6)  # of the slices; neighbours look alike, so one block keeps the sides apart
README = "README.md"

_NOTE = """# Brain sample

{count} axial slices of the MNI152 2009a template: T1-weighted images (`images/`) and tissue classes (`masks/`:
{classes}), made by `unet-edge data sample` from data files inside the package nilearn.
`val.txt` names the contiguous block of slices to validate on.

Images: ICBM 152 nonlinear symmetric atlas, version 2009a (Fonov et al., NeuroImage 54, 2011).
Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose and
without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and McGill
University make no representations about the suitability of this software for any purpose. It is provided "as is"
without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.

nilearn, whose 8-bit copies of these images were used: BSD-3-Clause, the nilearn developers.
"""


def make_brain_sample(folder: Path, progress: Progress | None = None) -> tuple[Path, Path]:
    """Make the sample in `folder`, or find it there.

    Class 1 is where T1 has signal, 2 where grey matter is likely and at least as likely as white, 3 where white
    matter is likely and likelier than grey. The folder appears complete or not at all.

    Args:
        folder: gets `images/` and `masks/` (8-bit grey PNG, 233x197 height x width), `val.txt` and `README.md`.
        progress: draws a bar, such as `cli.common.track`.

    Returns:
        The folders of the images and of the masks.

    Raises:
        InputError: nilearn is not installed or has other data files, or `folder` holds something else.
    """
    images, masks = folder / "images", folder / "masks"
    if _is_there(folder):
        return images, masks
    data = _nilearn_data()
    t1, grey, white = (
        _read_nifti(data / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz") for kind in ("t1", "gm", "wm")
    )
    if not t1.shape == grey.shape == white.shape:
        raise InputError(f"{data}: its brain images have different sizes: {_remedy()}")
    labels = np.where(t1 > 0, 1, 0).astype(np.uint8)
    labels[(grey >= MAJORITY) & (grey >= white)] = 2
    labels[(white >= MAJORITY) & (white > grey)] = 3
    kept = [z for z in range(t1.shape[2]) if np.count_nonzero(labels[:, :, z] > 1) >= LEAST_TISSUE]
    if folder.is_dir():
        folder.rmdir()  # an empty one; `_is_there` has refused all others
    with atomic_path(folder) as temporary:
        for kind in ("images", "masks"):
            (temporary / kind).mkdir(parents=True)
        for z in progress(kept, "Making the brain sample", len(kept)) if progress else kept:
            # Array axes are right-left, back-front: a quarter turn puts the front of the head on top.
            Image.fromarray(np.rot90(t1[:, :, z])).save(temporary / "images" / f"{_name(z)}.png")
            Image.fromarray(np.rot90(labels[:, :, z])).save(temporary / "masks" / f"{_name(z)}.png")
        first, last = (round(share * len(kept)) for share in VALIDATION_BLOCK)
        names = "".join(f"{_name(z)}\n" for z in kept[first:last])
        (temporary / "val.txt").write_text(names, encoding="utf-8")
        classes = ", ".join(f"{value} {name}" for value, name in enumerate(SAMPLE_CLASSES))
        (temporary / README).write_text(_NOTE.format(count=len(kept), classes=classes), encoding="utf-8")
    return images, masks


def _name(z: int) -> str:
    return f"axial_{z:03d}"


def _is_there(folder: Path) -> bool:
    """Whether the sample is in `folder` already; nothing else is ever overwritten."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        ours = (folder / README).read_text(encoding="utf-8").startswith(_NOTE[:14])
        names = [sorted(path.name for path in (folder / kind).glob("*.png")) for kind in ("images", "masks")]
        if ours and names[0] and names[0] == names[1] and (folder / "val.txt").is_file():
            return True
    except (OSError, UnicodeDecodeError):
        pass
    raise InputError(f"{folder}: holds something else than the whole brain sample: delete it or choose another folder")


def _remedy() -> str:
    return "pip install --no-deps 'nilearn==0.14.1'"


def _nilearn_data() -> Path:
    # Found, not imported: nilearn itself needs scikit-learn, pandas and more, its data files need nothing.
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the brain sample needs the data files of nilearn: pip install --no-deps nilearn")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def _read_nifti(path: Path) -> NDArray[np.uint8]:
    """A three-dimensional 8-bit volume from a gzip-compressed NIfTI-1 file (nifti.nimh.nih.gov/nifti-1).

    Raises:
        InputError: missing, damaged, or not such a file.
    """
    try:
        with gzip.open(path) as stream:
            header = stream.read(348)
            shape, offset = _check_header(header, path)
            stream.seek(offset)
            count = shape[0] * shape[1] * shape[2]
            voxels = np.frombuffer(stream.read(count), np.uint8)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}): {_remedy()}") from None
    if voxels.size != count:
        raise InputError(f"{path}: ends after {voxels.size} of {count} voxels: {_remedy()}")
    return voxels.reshape(shape, order="F")


def _check_header(header: bytes, path: Path) -> tuple[tuple[int, int, int], int]:
    """Shape and data offset, after a check of all that is relied on."""
    if len(header) != 348 or header[344:348] != b"n+1\0" or struct.unpack_from("<i", header)[0] != 348:
        raise InputError(f"{path}: not a NIfTI-1 file: {_remedy()}")
    rank, *sides = struct.unpack_from("<8h", header, 40)
    datatype, bits = struct.unpack_from("<2h", header, 70)
    offset = struct.unpack_from("<f", header, 108)[0]
    height, width, depth = sides[:3]
    if rank != 3 or min(sides[:3]) < 1 or height * width * depth > MAX_VOXELS:
        raise InputError(f"{path}: {rank} dimensions of {sides[:3]} are not a volume that fits: {_remedy()}")
    if (datatype, bits) != (2, 8):
        raise InputError(f"{path}: NIfTI data type {datatype} with {bits} bits, expected 2 (8-bit): {_remedy()}")
    if not (348 <= offset <= 1 << 20):  # also catches NaN
        raise InputError(f"{path}: impossible data offset {offset}: {_remedy()}")
    return (height, width, depth), int(offset)
