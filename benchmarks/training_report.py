"""TRAINING.md: a table for each setting, and a reading that follows from the numbers alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from unet_edge_bench.machine import machine_text
from unet_edge_bench.stats import Estimate, median_interval, verdict

__all__ = ["ALLOWED_LOSS", "markdown", "reading", "turns_of"]

ALLOWED_LOSS = 0.1  # of milesial's first epoch; beyond it a training computes something else
PARTS = ("first", "later")


def markdown(results: Mapping[str, Any]) -> str:
    """The whole document."""
    lines = ["# Training against milesial/Pytorch-UNet", "", *_how(results), "", "## Reading", ""]
    lines += [f"- {sentence}" for setting in results["settings"] for sentence in reading(setting)]
    for setting in results["settings"]:
        lines += ["", f"## {_title(setting)}", "", *_table(setting)]
    return "\n".join(lines) + "\n"


def reading(setting: Mapping[str, Any]) -> list[str]:
    """What the numbers of a setting allow to say; "cannot tell" is one of the findings."""
    sides, title = {side["name"]: side for side in setting["sides"]}, _title(setting)
    sentences = [f"{title}: {name} failed: {side['reason']}." for name, side in sides.items() if side["reason"]]
    usable = {name: side for name, side in sides.items() if not side["reason"]}
    base = usable.get("milesial fp32")
    if base is None:
        return [*sentences, f"{title}: milesial's training in fp32 was not measured, so nothing is compared with it."]
    other = [name for name, side in usable.items() if not _same_work(side, base)]
    sentences += [f"{title}: {name} has another loss: it does something else, and is not compared." for name in other]
    same = {name: side for name, side in usable.items() if name not in other}
    for name in same:
        if name.startswith("ours"):
            sentences.append(f"{title}: {name} trains {_comparison(same[name], base, 'milesial fp32')}")
    best = {who: _fastest(same, who) for who in ("ours", "milesial")}
    if best["ours"] and best["milesial"] not in (None, "milesial fp32"):
        text = _comparison(same[best["ours"]], same[best["milesial"]], best["milesial"])
        sentences.append(f"{title}: the fastest against the fastest: {best['ours']} trains {text}")
    return sentences


def turns_of(side: Mapping[str, Any], part: str) -> list[list[float]]:
    """Seconds an image by launch and round, of the first epochs or of the later ones."""
    chosen = [launch[:1] if part == "first" else launch[1:] for launch in side["epochs"]]
    return [[epoch["seconds"] / epoch["images"] for epoch in epochs] for epochs in chosen]


def _comparison(side: Mapping[str, Any], base: Mapping[str, Any], name: str) -> str:
    parts = []
    for part, when in zip(PARTS, ("in the first epoch", "in later ones"), strict=True):
        ratio, word = verdict(turns_of(base, part), turns_of(side, part))
        unsure = " (cannot tell)" if word == "cannot tell" else ""
        parts.append(f"{_times(ratio)} as many images a second as {name} {when}{unsure}")
    return ", ".join(parts).replace(f" as many images a second as {name} in later", " in later") + "."


def _fastest(sides: Mapping[str, Mapping[str, Any]], who: str) -> str | None:
    medians = {
        name: found.median
        for name, side in sides.items()
        if name.startswith(who) and (found := median_interval(turns_of(side, "later")))
    }
    return min(medians, key=medians.__getitem__) if medians else None


def _same_work(side: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    ours, theirs = _loss(side), _loss(base)
    return abs(ours - theirs) <= ALLOWED_LOSS * abs(theirs)


def _loss(side: Mapping[str, Any]) -> float:
    return statistics.fmean(launch[0]["loss"] for launch in side["epochs"])


def _how(results: Mapping[str, Any]) -> list[str]:
    machine = results["machine"]
    return [
        f"Made by `{results['command']}`.",
        "",
        f"{machine_text(machine)}; device {machine['device']}; {results['threads']} threads; "
        f"Python {machine['python']}, torch {machine['packages'].get('torch')}. Batch {results['batch']}.",
        "",
        "Both sides start from the same weights of the same network and train on the same files, which are in the"
        " system's memory, with milesial's optimizer, loss and clipping, without augmentation, validation and logging."
        " An epoch's time runs from asking for the first batch to the end of the last step: reading, decoding and"
        " scaling are in it, writing checkpoints is not. Ours is `unet_edge.train` itself, recipe `seed`; milesial's is"
        " written again from its published behaviour (`benchmarks/peers/milesial.py`): channels_last, RMSprop"
        " (foreach), a loader process for each core, every image read and scaled again in each epoch, and `--amp` as"
        " its own option.",
        "",
        f"In each of {results['launches']} launches every side has a new process; they take turns, "
        f"{'a launch' if results['apart'] else 'an epoch'} each, in an order that changes. The first epoch holds all"
        " that happens once: reading for our cache, compiling, the first step's start. Later ones are"
        f" {results['later_epochs']} a launch. Medians with an interval of 95 % (bootstrap over launches, then epochs)."
        " The loss is the first epoch's mean: where it is near milesial's, both did the same work; beyond"
        f" {ALLOWED_LOSS:.0%} a side is not compared.",
    ]


def _title(setting: Mapping[str, Any]) -> str:
    return f"width {setting['width']}, scale {setting['scale']:g}, {setting['images']} images an epoch"


def _table(setting: Mapping[str, Any]) -> list[str]:
    sides = setting["sides"]
    base = next((side for side in sides if side["name"] == "milesial fp32" and not side["reason"]), None)
    lines = [
        "| training | images/s, first epoch | images/s, later epochs | milesial fp32 = 1, first epoch"
        " | milesial fp32 = 1, later epochs | | memory MB | loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = [f"{side['name']}: {note}" for side in sides for note in dict.fromkeys(side["notes"])]
    return lines + [_line(side, base) for side in sides] + [line for note in notes for line in ("", note)]


def _line(side: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    if side["reason"]:
        return f"| {side['name']} | failed: {side['reason']} |" + " |" * 6
    cells = [side["name"], *(_rate(median_interval(turns_of(side, part))) for part in PARTS)]
    if base is None or side is base:
        cells += ["", "", ""]
    elif not _same_work(side, base):
        cells += ["", "", "**another loss**"]
    else:
        found = [verdict(turns_of(base, part), turns_of(side, part)) for part in PARTS]
        cells += [
            *(_times(ratio) for ratio, _ in found),
            {"slower": "faster", "faster": "slower"}.get(found[1][1], "cannot tell"),
        ]
    memory = [launch[-1]["memory_bytes"] for launch in side["epochs"] if launch[-1]["memory_bytes"]]
    cells += [f"{statistics.median(memory) / 2**20:.0f}" if memory else "", f"{_loss(side):.3f}"]
    return "| " + " | ".join(cells) + " |"


def _rate(seconds: Estimate | None) -> str:
    """Images a second, of seconds an image."""
    if seconds is None:
        return ""
    if seconds.low is None or seconds.high is None:
        return f"{1 / seconds.median:.3g}"
    return f"{1 / seconds.median:.3g} [{1 / seconds.high:.3g}–{1 / seconds.low:.3g}]"


def _times(ratio: Estimate | None) -> str:
    if ratio is None:
        return "unknown"
    if ratio.low is None or ratio.high is None:
        return f"{ratio.median:.2f}×"
    return f"{ratio.median:.2f}× [{ratio.low:.2f}–{ratio.high:.2f}]"
