"""Results as the benchmark writes them, made up: what a run of many kinds of rows looks like."""

from __future__ import annotations

import itertools

import numpy as np

from unet_edge_bench.stats import median_interval, outliers, percentiles, verdict

LAUNCHES, ROUNDS, SAMPLES = 5, 5, 12
SHARES = {"preprocess": 0.08, "inference": 0.86, "postprocess": 0.06}
MACHINE = {
    "system": "Linux",
    "machine": "x86_64",
    "processor": "AMD EPYC",
    "cores": 2,
    "physical_cores": 2,
    "memory_bytes": 25_769_803_776,
    "governor": None,
    "power": None,
    "python": "3.11.7",
    "packages": {"unet-edge": "0.1.0", "torch": "2.13.0+cpu", "onnxruntime": "1.32.0", "numpy": "2.4.6"},
}
LAYERS = [
    ("inc.double_conv.0", 3, 16, 1),
    ("inc.double_conv.3", 16, 16, 1),
    ("down1.maxpool_conv.1.double_conv.0", 16, 32, 2),
    ("down2.maxpool_conv.1.double_conv.0", 32, 64, 4),
    ("down3.maxpool_conv.1.double_conv.0", 64, 128, 8),
    ("down4.maxpool_conv.1.double_conv.0", 128, 128, 16),
    ("up1.conv.double_conv.0", 256, 128, 8),
    ("up2.conv.double_conv.0", 128, 64, 4),
    ("up3.conv.double_conv.0", 64, 32, 2),
    ("up4.conv.double_conv.0", 32, 16, 1),
    ("up4.conv.double_conv.3", 16, 16, 1),
    ("outc.conv", 16, 2, 1),
]


def results(**changes):
    """A whole run; `changes` replace parts of it."""
    rows = [
        row("torch-small", "best.pth, 2 threads", "checkpoint", "torch", 2, (320, 480), 163.0, 1),
        row("onnx1-small", "best.onnx, 1 thread", "onnx", "onnx", 1, (320, 480), 151.0, 2),
        row("onnx2-small", "best.onnx, 2 threads", "onnx", "onnx", 2, (320, 480), 87.0, 3),
        row("twin-small", "twin.onnx, 2 threads", "onnx", "onnx", 2, (320, 480), 87.4, 4),
        row("wrong-small", "bgr.onnx, 2 threads", "onnx", "onnx", 2, (320, 480), 80.0, 5),
        row("torch-large", "best.pth, 2 threads", "checkpoint", "torch", 2, (640, 960), 671.0, 6),
        row("onnx2-large", "best.onnx, 2 threads", "onnx", "onnx", 2, (640, 960), 352.0, 7),
        stopped("fixed-large", "fixed.onnx, 2 threads", "failed", "it takes 320x480 only, not 640x960"),
        stopped("coreml-small", "best.mlpackage, all", "untimed", "Core ML runs on macOS only", (320, 480)),
    ]
    rows[4]["agreement"] = agreement(False, ["31,204 of 2,457,600 labels differ", "it agrees when red and blue swap"])
    rows[4]["scores"]["dice"] = 0.9312
    rows[3]["scores"]["dice"], rows[3]["bytes"], rows[3]["sha256"] = 0.9871, 1_204_211, "c" * 64
    made = {
        "schema": "unet-edge-benchmark/1",
        "created": "2026-11-22T19:40:00+00:00",
        "command": "unet-edge benchmark best.pth best.onnx bgr.onnx --images photos --masks masks --threads 1,2",
        "seed": 0,
        "complete": True,
        "machine": MACHINE,
        "protocol": {
            "launches": LAUNCHES,
            "rounds": ROUNDS,
            "seconds_per_turn": 1.0,
            "settle_seconds": 0.2,
            "min_samples": 5,
            "warmup_seconds": 5.0,
            "confidence": 0.95,
            "timeout": 900.0,
        },
        "images": [
            {"name": f"{n:03}.jpg", "sha256": f"{n:064x}", "width": 1918, "height": 1280, "timed": n == 0}
            for n in range(16)
        ],
        "origin": "the photograph 000.jpg",
        "noise": noise(),
        "ceilings": [
            {"threads": 1, "gflops": 74.6, "gbytes_per_s": 17.3, "what": "", "samples": {}},
            {"threads": 2, "gflops": 141.2, "gbytes_per_s": 20.4, "what": "", "samples": {}},
        ],
        "rows": rows,
        "ranking": ranking(rows),
    }
    return {**made, **changes}


def noise(drift=0.01):
    """The reference loop; a drift of more than 5 % makes the run unreliable."""
    generator = np.random.default_rng(0)
    samples = (2.1 * generator.lognormal(0, 0.02, (LAUNCHES, ROUNDS))).tolist()
    reasons = (
        [f"the reference loop took {drift:.0%} longer after the run than before (limit 5%)"] if drift > 0.05 else []
    )
    return {
        "what": "median of 15 products of two 512x512 float32 matrices (numpy), 2 threads",
        "before_ms": 2.1,
        "after_ms": 2.1 * (1 + drift),
        "samples_ms": samples,
        "spread": 0.05,
        "drift": drift,
        "reliable": not reasons,
        "reasons": reasons,
    }


def row(name, label, format, backend, threads, size, ms, seed):
    """A timed row of `ms` milliseconds."""
    generator = np.random.default_rng(seed)
    launch = generator.lognormal(0, 0.01, (LAUNCHES, 1, 1))
    totals = ms * launch * generator.lognormal(0, 0.015, (LAUNCHES, ROUNDS, SAMPLES))
    totals[1, 2, 3] *= 1.45  # somebody else wanted the core
    samples = {stage: (totals * share).tolist() for stage, share in SHARES.items()}
    scale = size[0] * size[1] / (320 * 480)
    slow = format == "checkpoint"
    work = layers(size, threads, ms * 0.86) if format == "onnx" else []
    macs = sum(layer["macs"] for layer in layers(size, threads, ms))
    least = 2 * macs / (141.2 if threads == 2 else 74.6) / 1e6
    median = median_interval(np.median(totals, axis=2).tolist())
    return {
        "id": name,
        "label": label,
        "model": label.partition(",")[0],
        "format": format,
        "backend": backend,
        "sha256": ("a" if slow else "b") * 64,
        "bytes": 4_361_000 if slow else 4_342_618,
        "precision": "fp32",
        "head": "logits",
        "size": list(size),
        "image_size": [1280, 1918],
        "batch": 1,
        "threads": threads,
        "streams": 1,
        "compute_units": None,
        "proves": "",
        "status": "ok",
        "reason": None,
        "startup_ms": {
            "import": (generator.lognormal(0, 0.03, LAUNCHES) * (2400 if slow else 110)).tolist(),
            "load": (generator.lognormal(0, 0.03, LAUNCHES) * (410 if slow else 38)).tolist(),
            "first_run": (generator.lognormal(0, 0.03, LAUNCHES) * ms * 1.3).tolist(),
        },
        "warmup": [{"images": 12, "stationary": n > 0} for n in range(LAUNCHES)],
        "samples_ms": samples,
        "statistics": {
            **{stage: statistics(totals * share) for stage, share in SHARES.items()},
            "total": statistics(totals),
        },
        "throughput": {
            "images_per_s": {"median": 1e3 / median.median, "low": 1e3 / median.high, "high": 1e3 / median.low},
            "images": [[SAMPLES] * ROUNDS] * LAUNCHES,
            "seconds": [[1.0] * ROUNDS] * LAUNCHES,
        },
        "peak_memory_bytes": [int((560e6 if slow else 210e6) * scale**0.5)] * LAUNCHES,
        "agreement": None if slow else agreement(True, []),
        "scores": {"dice": 0.98783, "iou": 0.976},
        "cost": {"macs": macs, "flops": 2 * macs, "weight_bytes": 4_335_000, "activation_bytes": int(251e6 * scale)},
        "limit": {
            "ms": least,
            "bound": "compute",
            "share": least / ms,
            "per_layer": 1.1 * least,
            "note": "",
            "bottleneck": "Most time above the limit: outc.conv: 12 % of the time, at 60 % of the memory limit.",
        },
        "layers": work,
        "plan": None,
    }


def statistics(totals):
    """As the benchmark's, of (launches, rounds, samples) milliseconds."""
    estimate = median_interval(np.median(totals, axis=2).tolist())
    return {
        **estimate.to_dict(),
        **percentiles(totals.ravel()),
        "count": totals.size,
        "outliers": outliers(totals.ravel()),
    }


def stopped(name, label, status, reason, size=None):
    """A row without times."""
    empty = row(name, label, "onnx" if status == "failed" else "coreml", "onnx", 2, size or (640, 960), 50.0, 9)
    return {
        **empty,
        "status": status,
        "reason": reason,
        "startup_ms": {"import": [], "load": [], "first_run": []},
        "warmup": [],
        "samples_ms": {stage: [] for stage in SHARES},
        "statistics": None,
        "throughput": None,
        "peak_memory_bytes": [],
        "sha256": "d" * 64,
        "bytes": 2_204_000,
        **({"agreement": None, "scores": None} if status == "failed" else {}),
        "cost": None,
        "limit": None,
        "layers": None,
    }


def layers(size, threads, ms):
    """A small network's layers, timed."""
    gflops, rate = (141.2, 20.4) if threads == 2 else (74.6, 17.3)
    found = []
    for index, (name, ins, outs, stride) in enumerate(LAYERS):
        pixels = size[0] * size[1] // stride**2
        kernel = 1 if name == "outc.conv" else 9
        macs, moved = pixels * ins * outs * kernel, 4 * pixels * (ins + outs) + 4 * ins * outs * kernel
        compute, memory = 2 * macs / gflops / 1e6, moved / rate / 1e6
        found.append(
            {
                "name": name,
                "kind": "conv",
                "macs": macs,
                "flops": 2 * macs,
                "bytes": moved,
                "ms": max(compute, memory) * (1.25 + 0.1 * (index % 4)),
                "share": None,
                "limit_ms": max(compute, memory),
                "bound": "compute" if compute > memory else "memory",
            }
        )
    total = sum(layer["ms"] for layer in found)
    return [{**layer, "ms": layer["ms"] * ms / total, "share": layer["ms"] / total} for layer in found]


def agreement(passed, problems):
    """With the PyTorch row."""
    return {
        "reference": "torch-small",
        "passed": passed,
        "problems": problems,
        "identical": False,
        "max_difference": 3.6e-5 if passed else 8.4,
        "mean_difference": 1.1e-6 if passed else 0.61,
        "snr_db": 118.2 if passed else 9.3,
        "equal_labels": 1.0 if passed else 0.9873,
        "pixels": 2_457_600,
        "flipped": 0 if passed else 31_204,
        "flips": {"sure": 0 if passed else 12_011, "margin_median": 0.0, "margin_largest": None},
        "dice": 1.0 if passed else 0.951,
        "iou": 1.0 if passed else 0.914,
        "boundary_f1": 1.0 if passed else 0.88,
    }


def ranking(rows):
    """As the benchmark's: pairs of the same size that are timed and agree."""
    fit = [one for one in rows if one["status"] == "ok" and (one["agreement"] or {"passed": True})["passed"]]
    pairs = []
    for first, second in itertools.combinations(sorted(fit, key=lambda r: r["statistics"]["total"]["median"]), 2):
        if first["size"] == second["size"]:
            ratio, word = verdict(turns(first), turns(second))
            pairs.append({"first": first["id"], "second": second["id"], "ratio": ratio.to_dict(), "verdict": word})
    return pairs


def turns(one):
    stages = [np.array(one["samples_ms"][stage]) for stage in SHARES]
    return np.median(sum(stages), axis=2).tolist()
