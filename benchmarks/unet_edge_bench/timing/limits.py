"""Each row against the machine's ceilings: its operations and bytes, and how long its layers take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unet_edge_bench.stats import median_interval
from unet_edge_runtime.coreml_plan import compute_plan
from unet_edge_runtime.errors import UnetEdgeError
from unet_edge_runtime.spec import function_name
from unet_edge_runtime.transform import scaled_size

from .campaign import Measured
from .choices import Model
from .plan import Row
from .row_data import stage_turns

if TYPE_CHECKING:
    from unet_edge_bench.costs import LayerCost, Profile

__all__ = ["limits_of", "plan_of"]


def limits_of(
    row: Row, model: Model, measured: Measured, ceilings: Sequence[Mapping[str, Any]], runs: int
) -> dict[str, Any]:
    """Cost, limit and layers of a row; empty where they cannot be counted.

    The ceilings are those of this processor in fp32 and of one stream, so other rows get their cost alone.

    Args:
        row: that was timed.
        model: it is of.
        measured: what was.
        ceilings: measured in the same run.
        runs: of the layers' profile; 0 for none.
    """
    from unet_edge_bench.costs import bottleneck, roofline

    size = measured.facts.get("size")
    ceiling = next((one for one in ceilings if one["threads"] == row.threads), None)
    if measured.reason or not size or not ceiling or model.spec is None or _is_tiled(measured.facts, model.spec.scale):
        return {}
    costs = _costs(row, (size[0], size[1]))
    if not costs:
        return {}
    on_cpu = _is_fp32_on_cpu(row, model)
    times, problem = _profile(row, (size[0], size[1]), runs) if runs and on_cpu else (None, "")
    estimate = median_interval(stage_turns(measured.samples_ms, "inference"))
    limits = roofline(costs, times, ceiling, estimate.median if estimate else None)
    if not on_cpu:
        return {"cost": limits.cost_dict()}
    limit = limits.limit_dict()
    note = "; ".join(filter(None, [limit["note"], problem and f"the layers could not be timed: {problem}"]))
    limit = {**limit, "note": note, "bottleneck": bottleneck(limits)}
    return {"cost": limits.cost_dict(), "limit": limit, "layers": limits.layer_dicts()}


def _costs(row: Row, size: tuple[int, int]) -> list[LayerCost]:
    from unet_edge_bench.costs import layer_costs

    try:
        return layer_costs(row.path, row.backend, size, row.batch)
    except UnetEdgeError:
        return []


def _profile(row: Row, size: tuple[int, int], runs: int) -> tuple[Profile | None, str]:
    """The layers' times, or why there are none."""
    from unet_edge_bench.costs import profile

    try:
        return profile(row.path, size, row.threads, runs, row.batch), ""
    except UnetEdgeError as error:
        return None, str(error)


def _is_tiled(facts: Mapping[str, Any], scale: float) -> bool:
    """Whether one inference runs the network several times, which nothing here counts."""
    return any(side > most for side, most in zip(scaled_size(facts["image_size"], scale), facts["size"], strict=True))


def plan_of(row: Row, model: Model, measured: Measured) -> dict[str, Any] | None:
    """On a Mac, where Core ML means to run each operation; None elsewhere, and where it does not tell."""
    if row.backend != "coreml" or measured.reason or model.spec is None:
        return None
    function = function_name(tuple(measured.facts["size"])) if model.spec.input_sizes else ""
    try:
        return compute_plan(row.path, row.compute_units or "ane", function).to_dict()
    except UnetEdgeError:
        return None


def _is_fp32_on_cpu(row: Row, model: Model) -> bool:
    fp32 = row.streams == 1 and model.spec is not None and model.spec.precision == "fp32"
    return (
        fp32
        and not row.compute_units
        and row.options.get("device", "cpu") == "cpu"
        and row.backend in ("onnx", "torch")
    )
