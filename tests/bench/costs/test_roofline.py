"""Limits, by hand: what a machine could do, what a runtime did, and the sentence about it."""

from __future__ import annotations

import json

import pytest

from unet_edge_bench.costs import LayerCost, LayerTime, Profile, bottleneck, layer_costs, profile, roofline

CEILING = {"threads": 1, "gflops": 100.0, "gbytes_per_s": 10.0}
COSTS = [
    LayerCost("inc.0", "conv", 500_000_000, 1_000_000, 8_000_000, 1000),  # 10 ms of arithmetic, 0.9001 of traffic
    LayerCost("inc.1", "relu", 0, 8_000_000, 8_000_000, 0),  # 1.6 ms
    LayerCost("pool", "pool", 0, 8_000_000, 2_000_000, 0),  # 1 ms
    LayerCost("outc", "conv", 5_000_000, 2_000_000, 1_000_000, 500),  # 0.1 ms; 0.30005 of traffic
]


def measured(*layers, accounted=1.0, overhead=0.0):
    return Profile(tuple(LayerTime(*layer) for layer in layers), "measured", 5, 30.5, 30.0, accounted, overhead)


def test_the_limit_of_each_layer():
    rows = roofline(COSTS, None, CEILING).rows
    assert [row.name for row in rows] == ["inc.0", "inc.1", "pool", "outc"]
    assert [row.limit_ms for row in rows] == pytest.approx([10.0, 1.6, 1.0, 0.30005])
    assert [row.bound for row in rows] == ["compute", "memory", "memory", "memory"]
    assert {(row.ms, row.share, row.reached) for row in rows} == {(None, None, None)}


def test_the_limit_of_the_network():
    limits = roofline(COSTS, None, CEILING, measured_ms=20.2)
    assert limits.cost_dict() == {
        "macs": 505_000_000,
        "flops": 1_010_000_000,
        "weight_bytes": 1500,
        "activation_bytes": 38_000_000,
    }
    # All arithmetic, against only what has to pass through memory: the image, the weights and the logits.
    expected = {"ms": 10.1, "bound": "compute", "share": 0.5, "per_layer": 12.90005, "note": ""}
    assert limits.limit_dict() == {name: pytest.approx(v) if name != "note" else v for name, v in expected.items()}


def test_a_network_that_memory_limits():
    limits = roofline(COSTS, None, {"gflops": 100_000.0, "gbytes_per_s": 10.0})
    assert limits.limit_ms == pytest.approx((1_000_000 + 1_000_000 + 1500) / 10 / 1e6)
    assert (limits.bound, limits.share) == ("memory", None)


def test_a_fused_network_with_a_reorder():
    """As ONNX Runtime: other names, no ReLU, a change of layout at the end."""
    times = measured(
        ("relu_nchwc", "conv", 12.5, 1),
        ("pool_nchwc", "pool", 2.0, 1),
        ("out_nchwc", "conv", 0.5, 1),  # too little of the time to be worth naming
        ("ReorderOutput", "reorder", 5.0, 4_000_000),
    )
    limits = roofline(COSTS, times, CEILING)
    assert [(row.name, row.ms) for row in limits.rows] == [
        ("inc.0", 12.5),
        ("pool", 2.0),
        ("outc", 0.5),
        ("ReorderOutput", 5.0),
    ]
    assert [row.share for row in limits.rows] == pytest.approx([0.625, 0.1, 0.025, 0.25])
    assert limits.rows[0].reached == pytest.approx(0.8)
    assert (limits.rows[3].macs, limits.rows[3].limit_ms) == (0, pytest.approx(0.4))
    assert limits.macs == 505_000_000
    assert limits.measured_ms == 30.0
    assert limits.share == pytest.approx(10.1 / 30)
    assert roofline(COSTS, times, CEILING, measured_ms=20.2).share == pytest.approx(0.5)
    assert bottleneck(limits) == (
        "Most time above the limit: reorders between memory layouts (one of them): 25 % of the time; "
        "inc.0: 62 % of the time, at 80 % of the compute limit; pool: 10 % of the time, at 50 % of the memory limit."
    )


def test_arithmetic_that_nothing_timed_is_not_lost():
    """A runtime that made one operation of two: places no longer tell, names do."""
    limits = roofline(COSTS, measured(("outc", "conv", 1.0), ("pool", "pool", 2.0)), CEILING)
    assert [(row.name, row.ms, row.macs) for row in limits.rows] == [
        ("outc", 1.0, 5_000_000),
        ("pool", 2.0, 0),
        ("inc.0", None, 500_000_000),
    ]
    assert limits.rows[2].share is None


def test_above_the_limit_is_explained():
    winograd = roofline(COSTS, measured(("a", "conv", 5.0), ("b", "pool", 3.0), ("c", "conv", 1.0)), CEILING, 8.0)
    assert winograd.share == pytest.approx(10.1 / 8)
    assert "Winograd" in winograd.note
    assert "caches" not in winograd.note
    cached = roofline(COSTS, measured(("a", "conv", 12.0), ("b", "pool", 0.5), ("c", "conv", 1.0)), CEILING)
    assert "caches" in cached.note
    assert "Winograd" not in cached.note


def test_what_the_layers_leave_out_is_said():
    times = measured(("a", "conv", 12.0), ("b", "pool", 2.0), ("c", "conv", 1.0), accounted=0.75, overhead=0.25)
    note = roofline(COSTS, times, CEILING).note
    assert "25 % of a run passed between the layers" in note
    assert "timing the layers made a run 25 % longer" in note


def test_estimates_are_called_so():
    times = Profile((LayerTime("inc.0", "conv", 20.0), LayerTime("outc", "conv", 1.0)), "estimated", 0, 21.0, 21.0)
    limits = roofline(COSTS, times, CEILING)
    assert "estimated" in limits.note
    assert bottleneck(limits).startswith("Most time above the limit (estimated): inc.0: 95 % of the time")


def test_nothing_to_gain():
    limits = roofline(COSTS, measured(("a", "conv", 10.0), ("b", "pool", 1.0), ("c", "conv", 0.33)), CEILING)
    assert bottleneck(limits) == (
        "No layer is far above its limit; the longest is inc.0: 88 % of the time, at 100 % of the compute limit."
    )


def test_without_times_the_sentence_is_about_the_limits():
    sentence = bottleneck(roofline(COSTS, None, CEILING))
    assert sentence.startswith("Layers were not timed; at their limits most of the time would go to inc.0: 78 %")


def test_the_results_hold_what_the_schema_asks_for():
    limits = roofline(COSTS, measured(("a", "conv", 12.0), ("b", "pool", 2.0), ("c", "conv", 1.0)), CEILING)
    rows = json.loads(json.dumps(limits.layer_dicts()))
    assert [list(row) for row in rows] == [
        ["name", "kind", "macs", "flops", "bytes", "ms", "share", "limit_ms", "bound"]
    ] * 3
    assert rows[0]["flops"] == 2 * rows[0]["macs"] == 1_000_000_000


@pytest.mark.parametrize(
    ("costs", "ceiling"), [([], CEILING), (COSTS, {**CEILING, "gflops": 0.0}), (COSTS, {**CEILING, "gbytes_per_s": -1})]
)
def test_no_limit_from_nothing(costs, ceiling):
    with pytest.raises(ValueError, match="no limit"):
        roofline(costs, None, ceiling)


@pytest.mark.parametrize("kind", ["onnx", "checkpoint"])
def test_a_real_network(network, kind):
    """Every counted operation with arithmetic is timed, under the name that the network has for it."""
    path, size = getattr(network, kind), (48, 64)
    costs = layer_costs(path, "whatever", size)
    limits = roofline(costs, profile(path, size, threads=1, runs=3), CEILING)
    timed = {row.name: row.macs for row in limits.rows if row.ms is not None}
    assert {cost.name: cost.macs for cost in costs if cost.macs} == {n: m for n, m in timed.items() if m}
    assert sum(row.share or 0 for row in limits.rows) == pytest.approx(1)
    assert [row for row in limits.rows if row.ms is None] == []
    assert limits.measured_ms > 0
