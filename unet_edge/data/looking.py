"""One look at every pair, in parallel; what is found is remembered."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from .cache import FactsCache
from .pairing import Pair
from .resources import free_memory, usable_cores

__all__ = ["Progress", "look_at_all"]

PEAK = 32  # bytes a pixel while a pair is looked at: the image, the same as floats, the mask

Found = TypeVar("Found")

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Goes through items under a bar: (items, label, length) -> the same items."""


def look_at_all(
    look: Callable[[FactsCache, Pair], Found],
    pairs: Sequence[Pair],
    label: str,
    progress: Progress | None = None,
    cache: bool = True,
) -> list[Found]:
    """What `look` finds in each pair, in the order of the pairs. What it raises ends everything.

    Args:
        look: called in threads, as many as there are usable cores and the largest image leaves memory for.
        pairs: whose files are looked into.
        label: of the bar.
        progress: draws a bar, such as `cli.common.track`.
        cache: remember facts in the user's cache (`cache_folder`), after an interruption too.
    """
    facts = FactsCache(cache)
    pool = ThreadPoolExecutor(max_workers=_threads(pairs))  # Pillow and numpy work outside the interpreter's lock
    try:
        stream: Iterable[Found] = pool.map(partial(look, facts), pairs)
        return list(progress(stream, label, len(pairs)) if progress else stream)
    finally:
        pool.shutdown(cancel_futures=True)
        facts.save()


def _threads(pairs: Sequence[Pair]) -> int:
    sizes = {pair.image: _bytes(pair.image) for pair in pairs}
    pixels = _pixels(max(sizes, key=sizes.__getitem__)) if sizes else 0
    return max(1, min(usable_cores(), free_memory() // 2 // max(1, PEAK * pixels)))


def _pixels(path: Path) -> int:
    """Of an image, by its header; of a file without one, such as .npy, its bytes, which are no fewer."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.width * image.height
    except Exception:  # whatever a damaged file makes Pillow raise: the look says what it is
        return _bytes(path)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
