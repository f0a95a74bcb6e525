"""Medians with intervals for measurements that come in launches of rounds, and when two of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CONFIDENCE",
    "RESAMPLES",
    "Estimate",
    "Turns",
    "expansion",
    "median_interval",
    "outliers",
    "paired_ratio",
    "percentiles",
    "t_quantile",
    "unpaired_ratio",
    "verdict",
]

CONFIDENCE = 0.95
RESAMPLES = 2000
_NORMAL = 1.959963984540054  # the standard normal distribution's 97.5 % quantile
_FAR = 3.0  # inter-quartile ranges beyond the quartiles: Tukey's outer fences

Turns = Sequence[Sequence[float]]
"""One positive number a turn, by launch and round. Launches may have different numbers of rounds, or none."""


@dataclass(frozen=True)
class Estimate:
    """A median and where it would lie if all were measured again.

    Attributes:
        median: of all turns.
        low: lower end of the interval; None where there is too little to say.
        high: upper end.
    """

    median: float
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Plain data for JSON."""
        return asdict(self)

    def overlaps(self, other: Estimate) -> bool:
        """Whether the intervals touch; an unknown one touches everything."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return True
        return self.low <= other.high and other.low <= self.high

    def excludes(self, value: float) -> bool:
        """Whether the interval is known and leaves `value` out."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


def median_interval(turns: Turns, seed: int = 0) -> Estimate | None:
    """The median of all turns with a hierarchical bootstrap interval; None without any turn.

    Launches are drawn with replacement, then rounds within each, because turns of one process resemble each other
    (Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013). The percentile interval is widened
    by `expansion` for the number of launches, on the logarithmic scale, so it stays above 0.

    Args:
        turns: one positive number a turn.
        seed: of the resampling.
    """
    found = _interval(turns, seed)
    if found is None:
        return None
    # Of an even number of turns the logarithms' median is a geometric mean; people expect the usual one.
    return replace(found, median=float(np.median([value for rounds in turns for value in rounds])))


def paired_ratio(first: Turns, second: Turns, seed: int = 0) -> Estimate | None:
    """How many times as long `first` takes: the median over pairs of turns of the same launch and round.

    Turns of one round stand beside each other in time, so what slows the machine for a while cancels out.

    Returns:
        The ratio first / second; None without a pair of turns.
    """
    pairs = [[a / b for a, b in zip(ours, theirs, strict=False)] for ours, theirs in zip(first, second, strict=False)]
    return _interval(pairs, seed)


def unpaired_ratio(first: Turns, second: Turns, seed: int = 0) -> Estimate | None:
    """How many times as long `first` takes, for turns that were measured apart; None where one has none."""
    ours, theirs = _logarithms(first), _logarithms(second)
    if not (ours and theirs):
        return None
    generator = np.random.default_rng(seed)
    centre = float(np.median(np.concatenate(ours)) - np.median(np.concatenate(theirs)))
    spread = _resampled(ours, generator) - _resampled(theirs, generator)
    return _estimate(centre, spread, min(_clusters(ours), _clusters(theirs)))


def verdict(first: Turns, second: Turns, seed: int = 0) -> tuple[Estimate | None, str]:
    """Whether `first` is faster than `second`.

    Returns:
        The ratio first / second, and "faster", "slower", or "cannot tell": the last wherever the ratio's interval
        holds 1 or the two medians' intervals overlap.
    """
    ratio = paired_ratio(first, second, seed)
    ours, theirs = median_interval(first, seed), median_interval(second, seed)
    if ratio is None or ours is None or theirs is None or not ratio.excludes(1) or ours.overlaps(theirs):
        return ratio, "cannot tell"
    return ratio, "faster" if ratio.median < 1 else "slower"


def expansion(clusters: int) -> float:
    """How much wider a percentile interval must be for few clusters.

    Student's t against the normal distribution, and the bootstrap's narrowness: t(L-1) / z * sqrt(L / (L - 1))
    (Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015).
    """
    return t_quantile(clusters - 1) / _NORMAL * float(np.sqrt(clusters / (clusters - 1)))


def t_quantile(freedom: int, probability: float = (1 + CONFIDENCE) / 2) -> float:
    """Quantile of Student's t distribution, accurate to a thousandth.

    With t = sqrt(f) tan(a) the density becomes cos(a)^(f - 1), which is integrated numerically.
    """
    angles = np.linspace(0, np.pi / 2, 20001)
    density = np.cos(angles).clip(0) ** (freedom - 1)
    area = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = float(np.interp(2 * probability - 1, area / area[-1], angles))
    return float(np.sqrt(freedom) * np.tan(angle))


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """p5, p95 and p99 of raw samples."""
    values = np.percentile(np.asarray(samples, float), [5, 95, 99])
    return dict(zip(("p5", "p95", "p99"), map(float, values), strict=True))


def outliers(samples: Sequence[float]) -> int:
    """Samples far above the others: beyond Tukey's outer fence. They are counted, and stay."""
    low, high = np.percentile(np.asarray(samples, float), [25, 75])
    return int((np.asarray(samples, float) > high + _FAR * (high - low)).sum())


def _interval(turns: Turns, seed: int) -> Estimate | None:
    launches = _logarithms(turns)
    if not launches:
        return None
    centre = float(np.median(np.concatenate(launches)))
    return _estimate(centre, _resampled(launches, np.random.default_rng(seed)), _clusters(launches))


def _logarithms(turns: Turns) -> list[NDArray[np.float64]]:
    return [np.log(np.asarray(rounds, float)) for rounds in turns if len(rounds)]


def _clusters(launches: list[NDArray[np.float64]]) -> int:
    """What varies independently: launches, or the rounds of the only one."""
    return len(launches) if len(launches) > 1 else len(launches[0])


def _resampled(launches: list[NDArray[np.float64]], generator: np.random.Generator) -> NDArray[np.float64]:
    """`RESAMPLES` medians of launches drawn with replacement, and rounds within them."""
    lengths = np.array([len(rounds) for rounds in launches])
    table = np.full((len(launches), lengths.max()), np.nan)
    for row, rounds in zip(table, launches, strict=True):
        row[: len(rounds)] = rounds
    drawn = generator.integers(len(launches), size=(RESAMPLES, len(launches)))
    count = lengths[drawn][..., None]
    rounds = (generator.random((*drawn.shape, table.shape[1])) * count).astype(np.intp)
    values = np.where(np.arange(table.shape[1]) < count, table[drawn[..., None], rounds], np.nan)
    return np.asarray(np.nanmedian(values.reshape(RESAMPLES, -1), axis=1))


def _estimate(centre: float, resampled: NDArray[np.float64], clusters: int) -> Estimate:
    if clusters < 2:
        return Estimate(float(np.exp(centre)), None, None)
    tails = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    low, high = np.percentile(resampled, tails)
    factor = expansion(clusters)
    # The resampled medians need not lie around the centre: an end never crosses it.
    below, above = max(0.0, centre - float(low)), max(0.0, float(high) - centre)
    return Estimate(*(float(np.exp(value)) for value in (centre, centre - factor * below, centre + factor * above)))
