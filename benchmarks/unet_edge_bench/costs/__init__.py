"""What a network costs, layer by layer, how long its layers take, and how far that is from the machine's limit.

from unet_edge_bench.costs import bottleneck, layer_costs, profile, roofline

costs = layer_costs("model.onnx", "onnx", (320, 480))
times = profile("model.onnx", (320, 480), threads=2, runs=20)
limits = roofline(costs, times, {"gflops": 160.0, "gbytes_per_s": 20.0})
print(limits.cost_dict(), limits.limit_dict(), bottleneck(limits))
"""

from .bottleneck import bottleneck
from .count import layer_costs
from .layer import LayerCost, LayerTime, Profile
from .profile import MAX_RUNS, estimate, profile
from .roofline import LayerRow, Roofline, roofline

__all__ = [
    "MAX_RUNS",
    "LayerCost",
    "LayerRow",
    "LayerTime",
    "Profile",
    "Roofline",
    "bottleneck",
    "estimate",
    "layer_costs",
    "profile",
    "roofline",
]
