"""Which input sizes an artefact gets."""

from __future__ import annotations

from collections.abc import Sequence

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.segmenter import padded_size
from unet_edge_runtime.spec import ModelSpec

__all__ = ["Size", "input_sizes"]

Size = tuple[int, int]


def input_sizes(
    spec: ModelSpec, format: str, sizes: Sequence[Size], dynamic: bool, origin: str
) -> tuple[tuple[Size, ...], str]:
    """Decide on the sizes of the network's input.

    Args:
        spec: the checkpoint's; `training_sizes` and `multiple` are used.
        format: onnx or coreml, which needs a fixed size and can have several.
        sizes: (height, width) asked for.
        dynamic: whether every size was asked for.
        origin: the checkpoint, for messages.

    Returns:
        One or several (height, width), none for dynamic; and a note where this was not the user's own choice.

    Raises:
        InputError: the wishes contradict each other or the network, or Core ML has no size to take.
    """
    sizes = tuple(dict.fromkeys(sizes))
    if dynamic and sizes:
        raise InputError("--dynamic and --size exclude each other: leave one out")
    if dynamic and format == "coreml":
        raise InputError(
            "Core ML packages have fixed sizes here: replace --dynamic with --size HxW, once or several times"
        )
    if len(sizes) > 1 and format == "onnx":
        raise InputError("several sizes are for Core ML; an ONNX file takes one --size, or any size with --dynamic")
    if dynamic:
        return (), ""
    if sizes:
        return tuple(_checked(size, spec.multiple) for size in sizes), ""
    trained = list(dict.fromkeys(padded_size(one, spec.multiple) for one in spec.training_sizes))
    if len(trained) == 1:
        return (trained[0],), ""
    if format == "onnx":
        why = f"was trained at {len(trained)} sizes" if trained else "does not say its training size"
        return (), f"the checkpoint {why}, so height and width are dynamic; --size HxW fixes them"
    if trained:
        return (trained[0],), f"the most frequent of {len(trained)} training sizes; --size HxW chooses another"
    example = f"{20 * spec.multiple}x{30 * spec.multiple}"
    raise InputError(
        f"{origin} does not say its training size, and Core ML needs a fixed one: "
        f"add --size HxW in multiples of {spec.multiple}, such as --size {example}"
    )


def _checked(size: Size, multiple: int) -> Size:
    nearest = tuple(max(multiple, round(side / multiple) * multiple) for side in size)
    if nearest != size:
        raise InputError(
            f"--size {size[0]}x{size[1]}: height and width must be multiples of {multiple} for this network; "
            f"the nearest is {nearest[0]}x{nearest[1]}"
        )
    return size
