"""How far from the limit: each layer's least time on a machine, and how close a runtime came to it.

The roofline model (Williams, Waterman and Patterson, 2009, doi:10.1145/1498765.1498785): an operation takes no less
than its arithmetic at the machine's highest rate, and no less than its traffic at the memory's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .layer import LayerCost, LayerTime, Profile

__all__ = ["LayerRow", "Roofline", "roofline"]

WORTH_SAYING = 0.05
"""Share of a run from which what the layers' times leave out, or add, is mentioned."""


@dataclass(frozen=True)
class LayerRow:
    """One layer against its limit.

    Attributes:
        name: as the network has it, or as the runtime calls what only the runtime has.
        kind: as `LayerCost` and `LayerTime`.
        macs: multiply-accumulates.
        bytes: read and written if nothing is fused.
        ms: it took; None where nothing timed it.
        share: of the time of all layers, 0..1.
        limit_ms: the larger of arithmetic and traffic at the machine's rates.
        bound: which of them that is, "compute" or "memory".
    """

    name: str
    kind: str
    macs: int
    bytes: int
    ms: float | None
    share: float | None
    limit_ms: float
    bound: str

    @property
    def reached(self) -> float | None:
        """Limit over time: 1 at the limit; see `Roofline` on what is above 1."""
        return self.limit_ms / self.ms if self.ms else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the results' `layers`."""
        return {
            "name": self.name,
            "kind": self.kind,
            "macs": self.macs,
            "flops": 2 * self.macs,
            "bytes": self.bytes,
            "ms": self.ms,
            "share": self.share,
            "limit_ms": self.limit_ms,
            "bound": self.bound,
        }


@dataclass(frozen=True)
class Roofline:
    """A network against the limit of a machine, in two ways.

    `limit_ms` bounds the whole network when everything between its input and output stays in caches: no fusion can
    beat it. `per_layer_ms` adds up the layers' own limits, nothing fused: more than that is lost inside layers, and
    what is between the two can only be gained by fusing.

    More than 100 % of a limit is possible. Arithmetic is counted as the direct convolution's, and Winograd's algorithm,
    for one, does a 3x3 convolution with less than half of its multiplications (Lavin and Gray, 2016,
    arXiv:1509.09308). Traffic is counted as memory's, while a small layer's values may never leave the caches. And the
    ceiling is the highest rate that was seen, not the highest there is: a machine that was busy while it was measured,
    or a matrix product that leaves its widest instructions unused, puts it too low.
    Both limits are those of float32 on the processor that the ceiling was measured on: a narrower type has others.

    Attributes:
        rows: the layers: as executed where they were timed, as counted otherwise.
        macs: multiply-accumulates.
        weight_bytes: of all weights, as often as they are read.
        activation_bytes: of every layer's inputs and outputs.
        limit_ms: least time of the whole network.
        bound: what sets it, "compute" or "memory".
        per_layer_ms: sum of the layers' limits.
        measured_ms: median time of a whole run, if known.
        source: of the layers' times, "measured" or "estimated"; empty where there are none.
        between: share of a profiled run that passed between its layers.
        overhead: how much longer a run took because it was profiled; 0.02 is 2 %.
    """

    rows: tuple[LayerRow, ...]
    macs: int
    weight_bytes: int
    activation_bytes: int
    limit_ms: float
    bound: str
    per_layer_ms: float
    measured_ms: float | None
    source: str
    between: float = 0.0
    overhead: float = 0.0

    @property
    def share(self) -> float | None:
        """The limit over the measured time, 0..1 and above."""
        return self.limit_ms / self.measured_ms if self.measured_ms else None

    @property
    def note(self) -> str:
        """What a reader has to know about the numbers; empty where there is nothing."""
        notes = []
        if self.source == "estimated":
            notes.append("the layers' times are estimated: Core ML's expected shares of the measured whole")
        if self.between > WORTH_SAYING:
            notes.append(f"{_percent(self.between)} of a run passed between the layers")
        if self.overhead > WORTH_SAYING:
            notes.append(f"timing the layers made a run {_percent(self.overhead)} longer")
        above = [self.bound] if (self.share or 0) > 1 else []
        above += [row.bound for row in self.rows if (row.reached or 0) > 1]
        if "compute" in above:
            notes.append(
                "above 100 % of the compute limit: an algorithm such as Winograd's needs fewer multiplications than "
                "the direct convolution that is counted, or the ceiling was measured too low"
            )
        if "memory" in above:
            notes.append(
                "above 100 % of the memory limit: values stayed in caches, or the ceiling was measured too low"
            )
        return "; ".join(notes)

    def cost_dict(self) -> dict[str, int]:
        """Plain data for the results' `cost`."""
        return {
            "macs": self.macs,
            "flops": 2 * self.macs,
            "weight_bytes": self.weight_bytes,
            "activation_bytes": self.activation_bytes,
        }

    def limit_dict(self) -> dict[str, Any]:
        """Plain data for the results' `limit`; `per_layer` is in milliseconds."""
        return {
            "ms": self.limit_ms,
            "bound": self.bound,
            "share": self.share,
            "per_layer": self.per_layer_ms,
            "note": self.note,
        }

    def layer_dicts(self) -> list[dict[str, Any]]:
        """Plain data for the results' `layers`."""
        return [row.to_dict() for row in self.rows]


def roofline(
    costs: Sequence[LayerCost],
    times: Profile | Sequence[LayerTime] | None,
    ceiling: Mapping[str, Any],
    measured_ms: float | None = None,
) -> Roofline:
    """Hold a network's cost against a machine's ceiling, and against what its layers took.

    A timed operation is the counted one of its kind and place, or else of its name. One that is only timed, such as
    a reorder or a batch norm, has its own traffic and no arithmetic; one that is only counted and has no arithmetic,
    such as a ReLU, was fused into its neighbour and has no row.

    Args:
        costs: of `layer_costs`, at the size and batch that were timed.
        times: of `profile` or `estimate`; None where nothing timed the layers.
        ceiling: `gflops` and `gbytes_per_s` that the machine reached with as many threads.
        measured_ms: median time of a whole run; by default the profile's plain runs.

    Raises:
        ValueError: nothing was counted, or the ceiling is not positive.
    """
    if not costs or min(ceiling["gflops"], ceiling["gbytes_per_s"]) <= 0:
        raise ValueError(f"no limit from {len(costs)} layers and a ceiling of {ceiling}")
    profile = times if isinstance(times, Profile) else None
    if measured_ms is None and profile:
        measured_ms = profile.plain_ms
    weights = sum(cost.weight_bytes for cost in costs)
    ends = costs[0].input_bytes + costs[-1].output_bytes
    macs = sum(cost.macs for cost in costs)
    limit_ms, bound = _limit(macs, weights + ends, ceiling)
    return Roofline(
        rows=tuple(_rows(costs, times, ceiling)),
        macs=macs,
        weight_bytes=weights,
        activation_bytes=sum(cost.input_bytes + cost.output_bytes for cost in costs),
        limit_ms=limit_ms,
        bound=bound,
        per_layer_ms=sum(_limit(cost.macs, cost.bytes, ceiling)[0] for cost in costs),
        measured_ms=measured_ms,
        source="" if times is None else profile.source if profile else "measured",
        between=1 - profile.accounted if profile else 0.0,
        overhead=profile.overhead if profile else 0.0,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _limit(macs: int, size: int, ceiling: Mapping[str, Any]) -> tuple[float, str]:
    compute, memory = 2 * macs / ceiling["gflops"] / 1e6, size / ceiling["gbytes_per_s"] / 1e6
    return (compute, "compute") if compute >= memory else (memory, "memory")


def _rows(
    costs: Sequence[LayerCost], times: Iterable[LayerTime] | None, ceiling: Mapping[str, Any]
) -> Iterator[LayerRow]:
    pairs = [(None, cost) for cost in costs] if times is None else _paired(costs, list(times))
    total = sum(ms or 0 for ms, _ in pairs)
    for ms, cost in pairs:
        share = None if ms is None else ms / total if total else 0.0
        limit_ms, bound = _limit(cost.macs, cost.bytes, ceiling)
        yield LayerRow(cost.name, cost.kind, cost.macs, cost.bytes, ms, share, limit_ms, bound)


def _paired(costs: Sequence[LayerCost], times: Sequence[LayerTime]) -> list[tuple[float | None, LayerCost]]:
    """Milliseconds, in order, with what they were spent on; then the arithmetic that nothing timed."""
    partners: dict[int, LayerCost] = {}
    for kind in {time.kind for time in times}:
        timed = [index for index, time in enumerate(times) if time.kind == kind]
        counted = [cost for cost in costs if cost.kind == kind]
        if len(timed) == len(counted):
            partners.update(zip(timed, counted, strict=True))
        else:
            named = {cost.name: cost for cost in counted}
            partners.update({index: named[times[index].name] for index in timed if times[index].name in named})
    found = {id(cost) for cost in partners.values()}
    untimed = [(None, cost) for cost in costs if cost.macs and id(cost) not in found]
    spent = [(time.ms, partners.get(index) or _unasked(time)) for index, time in enumerate(times)]
    return [*spent, *untimed]


def _unasked(time: LayerTime) -> LayerCost:
    """What only the runtime has: all traffic, no arithmetic."""
    return LayerCost(time.name, time.kind, 0, time.bytes, 0, 0)
