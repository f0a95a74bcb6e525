"""RESULTS.md: tables of what was measured, and a reading that follows from the numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from roster import OURS, PEERS

from unet_edge_bench.machine import machine_text
from unet_edge_bench.stats import Estimate, verdict

__all__ = ["against_ours", "markdown"]


def markdown(results: Mapping[str, Any]) -> str:
    """The whole document."""
    campaigns, roads = results["campaigns"], results["roads"]
    lines = ["# Against other runtimes, and against the original", "", *_how(results), "", "## Reading", ""]
    lines += [f"- {sentence}" for sentence in reading(results)]
    for campaign in campaigns:
        lines += ["", f"## The network: {campaign['name']}", "", *_table(campaign["results"])]
    if roads or results["roads_left_out"]:
        lines += ["", "## Whole roads against milesial/Pytorch-UNet", "", *_roads(roads, results)]
    lines += ["", "## Settings and versions", "", *_settings(results)]
    return "\n".join(lines) + "\n"


def reading(results: Mapping[str, Any]) -> list[str]:
    """Sentences that the numbers allow; "cannot tell" is one of the findings."""
    sentences = []
    for campaign in results["campaigns"]:
        sentences += _reading_of(campaign)
    for road in results["roads"]:
        sentences.append(_road_sentence(road))
    return sentences


def against_ours(row: Mapping[str, Any], ours: Mapping[str, Any], seed: int) -> tuple[Estimate | None, str]:
    """How many times as long as ours a row's network takes, and "faster", "slower" or "cannot tell" of the row.

    The network alone: what comes before and after it is our code in every row.
    """
    return verdict(_network_turns(row), _network_turns(ours), seed)


def _reading_of(campaign: Mapping[str, Any]) -> list[str]:
    name, rows, seed = campaign["name"], campaign["results"]["rows"], campaign["results"]["seed"]
    noise = campaign["results"]["noise"]
    sentences = []
    if not noise["reliable"]:
        sentences.append(f"{name}: **the machine was not quiet**: {'; '.join(noise['reasons'])}.")
    wrong = [row for row in rows if not _agrees(row)]
    sentences += [f"{name}: {row['label']} does not agree: {row['agreement']['problems'][0]}." for row in wrong]
    timed = {row["id"]: row for row in rows if row["status"] == "ok" and _agrees(row)}
    if OURS not in timed:
        return [*sentences, f"{name}: ours was not measured, so nothing is compared with it."]
    found: dict[str, list[str]] = {"faster": [], "slower": [], "cannot tell": []}
    for row in timed.values():
        if row["id"] != OURS:
            ratio, word = against_ours(row, timed[OURS], seed)
            found[word].append(f"{row['label']} ({_times(ratio)})")
    for word, text in (
        ("faster", "faster than ours, time in multiples of ours"),
        ("slower", "slower than ours"),
        ("cannot tell", "cannot tell from ours"),
    ):
        sentences.append(f"{name}: {text}: {', '.join(found[word]) or 'none'}.")
    return sentences


def _road_sentence(road: Mapping[str, Any]) -> str:
    times = _times(Estimate(**road["ratio"]))
    words = {"slower": "ours is faster", "faster": "ours is slower", "cannot tell": "cannot tell which is faster"}
    what = road["what"][0].upper() + road["what"][1:]
    return f"{what}: milesial's way takes {times} as long as ours: {words[road['verdict']]}."


def _how(results: Mapping[str, Any]) -> list[str]:
    machine = results["machine"]
    return [
        f"Made by `{results['command']}` on {results['created'][:10]}.",
        "",
        f"{machine_text(machine)}, {machine['system']} {machine['machine']}, Python {machine['python']}; "
        f"{results['threads']} threads for each runtime, batch 1, fp32. {results['origin']}.",
        "",
        "Every runtime gets the same weights and the same pixels. In each launch every one has a new process; they"
        " take turns, in an order that changes. Times are medians of turns with an interval of 95 % (bootstrap over"
        " launches, then rounds). One is called faster only where the paired ratio's interval leaves out 1 and the two"
        " medians' intervals do not touch; otherwise: cannot tell. One whose masks differ is shown as wrong and not"
        " compared. The columns: the network alone; with reading the pixels into it and making the mask of its output,"
        " which is our code in every row; start is import, loading and the first image.",
    ]


def _table(results: Mapping[str, Any]) -> list[str]:
    protocol, noise = results["protocol"], results["noise"]
    rows = sorted(results["rows"], key=lambda row: _median(row, "inference"))
    ours = next((row for row in rows if row["id"] == OURS and row["status"] == "ok"), None)
    lines = [
        f"{protocol['launches']} launches of {protocol['rounds']} rounds, turns of at least "
        f"{protocol['seconds_per_turn']:g} s and {protocol['min_samples']} images. Reference loop: spread "
        f"{noise['spread']:.0%}, drift {noise['drift']:+.0%}; "
        + ("the machine was quiet." if noise["reliable"] else "**the machine was not quiet.**"),
        "",
        "| runtime | network ms | all ms | network, ours = 1 | | start s | memory MB | file MB "
        "| largest logit difference | pixels that differ | Dice |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return lines + [_line(row, ours, results["seed"]) for row in rows]


def _line(row: Mapping[str, Any], ours: Mapping[str, Any] | None, seed: int) -> str:
    if row["status"] != "ok":
        return f"| {row['label']} | {row['status']}: {row['reason']} |" + " |" * 9
    ratio, word = None, ""
    if ours is not None and row is not ours and _agrees(row):
        ratio, word = against_ours(row, ours, seed)
    start = sum(float(np.median(row["startup_ms"][part])) for part in ("import", "load", "first_run")) / 1000
    peak = [bytes_ for bytes_ in row["peak_memory_bytes"] if bytes_]
    cells = [
        row["label"],
        _interval(row["statistics"]["inference"]),
        _interval(row["statistics"]["total"]),
        _times(ratio) if ratio else "",
        word if _agrees(row) else "**wrong**",
        f"{start:.2f}",
        f"{np.median(peak) / 2**20:.0f}" if peak else "",
        f"{row['bytes'] / 2**20:.1f}",
        *_agreement_cells(row),
    ]
    return "| " + " | ".join(cells) + " |"


def _agreement_cells(row: Mapping[str, Any]) -> list[str]:
    dice = (row["scores"] or {}).get("dice")
    scores = "" if dice is None else f"{dice:.4f}"
    agreement = row["agreement"]
    if agreement is None:
        return ["reference", "", scores]
    if "max_logit_difference" not in agreement:
        return ["", "", scores]
    beyond = "" if agreement["strict"] else " (beyond what our exports may have)"
    share = f"{agreement['different_pixels']} of {agreement['pixels'] / 1e6:.1f} M"
    return [f"{agreement['max_logit_difference']:.1e}{beyond}", share, scores]


def _roads(roads: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[str]:
    lines = [
        "Its prediction, written again from its published behaviour (`benchmarks/peers/milesial.py`; without its"
        " imports of torchvision, matplotlib and wandb, which would only slow it down) against ours through the"
        " exported ONNX file, both at batch 1. Training against training: [TRAINING.md](TRAINING.md).",
        "",
        "| road | ours ms | milesial's ms | milesial's, ours = 1 | |",
        "|---|---|---|---|---|",
    ]
    for road in roads:
        ours, theirs = (_interval(road["sides"][side]) for side in ("ours", "milesial"))
        lines.append(
            f"| {road['what']} | {ours} | {theirs} | {_times(Estimate(**road['ratio']))} | {road['verdict']} |"
        )
    for name, share in results["different_pixels"].items():
        lines += ["", f"Mask files of the two differ in {share:.4%} of the pixels ({name})."]
    lines += [line for reason in results["roads_left_out"] for line in ("", f"Left out: {reason}.")]
    return lines


def _settings(results: Mapping[str, Any]) -> list[str]:
    lines = ["| runtime | version | settings |", "|---|---|---|"]
    for peer in PEERS:
        if peer.name in results["versions"]:
            lines.append(f"| {peer.label} | {peer.package} {results['versions'][peer.name]} | {peer.settings} |")
    return lines + [line for reason in results["left_out"] for line in ("", f"Left out: {reason}.")]


def _agrees(row: Mapping[str, Any]) -> bool:
    return row["agreement"] is None or bool(row["agreement"]["passed"])


def _median(row: Mapping[str, Any], stage: str) -> float:
    return float(row["statistics"][stage]["median"]) if row["statistics"] else float("inf")


def _network_turns(row: Mapping[str, Any]) -> list[list[float]]:
    return [[float(np.median(turn)) for turn in launch] for launch in row["samples_ms"]["inference"]]


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None:
        return _number(estimate["median"])
    return f"{_number(estimate['median'])} [{_number(estimate['low'])}–{_number(estimate['high'])}]"


def _times(estimate: Estimate | None) -> str:
    if estimate is None or estimate.median is None:
        return "unknown"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.median:.2f}×"
    return f"{estimate.median:.2f}× [{estimate.low:.2f}–{estimate.high:.2f}]"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
