"""One look at every pair, in parallel; what is found is remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from .cache import FactsCache
from .pairing import Pair
from .resources import usable_cores

__all__ = ["Progress", "look_at_all"]

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
        look: called in threads, as many as there are usable cores.
        pairs: whose files are looked into.
        label: of the bar.
        progress: draws a bar, such as `cli.common.track`.
        cache: remember facts in the user's cache (`cache_folder`), after an interruption too.
    """
    facts = FactsCache(cache)
    pool = ThreadPoolExecutor(max_workers=usable_cores())  # Pillow and numpy work outside the interpreter's lock
    try:
        stream: Iterable[Found] = pool.map(partial(look, facts), pairs)
        return list(progress(stream, label, len(pairs)) if progress else stream)
    finally:
        pool.shutdown(cancel_futures=True)
        facts.save()
