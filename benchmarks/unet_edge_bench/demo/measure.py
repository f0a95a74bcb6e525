"""The demo's measurements: scores, agreement and latency of every backend that runs here."""

from __future__ import annotations

import datetime
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unet_edge.data.pairing import Pair
from unet_edge_bench.machine import available_cores
from unet_edge_bench.timing.campaign import Campaign, run_campaign
from unet_edge_bench.timing.plan import Row
from unet_edge_bench.timing.results import rank
from unet_edge_bench.timing.row_data import all_samples, row_data
from unet_edge_runtime.errors import BackendError, TrainingError
from unet_edge_runtime.segmenter import Segmenter

from .agreement import Outcome, insist_on_agreement, mask_file, overlay_file, predict_all
from .artefacts import BACKENDS, UNTIMED, Artefact, backend_options, open_backends
from .folder import DemoFolder, Steps

if TYPE_CHECKING:
    from .run import Plan

__all__ = ["measured_results"]

MEASURED = ("measured", "noise", "ranking", "backends", "refused", "threads", "protocol")
DEPENDS_ON = ("machine", "artefacts", "data", "required")  # while these facts stay, so do the results

Say = Callable[[str], None]


def measured_results(
    plan: Plan,
    place: DemoFolder,
    pairs: Sequence[Pair],
    artefacts: Mapping[str, Artefact],
    facts: Mapping[str, Any],
    steps: Steps,
    say: Say,
) -> dict[str, Any]:
    """What the last run found, where nothing has changed since; else predict, compare and time now.

    Args:
        plan: what is required, and how latency is measured.
        place: holds the results of the last run and gets the predictions.
        pairs: the validation pairs.
        artefacts: by format.
        facts: as `collect_facts` gives them.
        steps: times what is done.
        say: told what is done.

    Returns:
        Plain data with the keys `MEASURED`.

    Raises:
        TrainingError: a score is below what the plan requires.
        AgreementError: a backend is beyond its tolerance.
        BackendError: a runtime that has just predicted cannot be timed.
    """
    threads = min(plan.threads, available_cores())
    segmenters, refused = open_backends(artefacts, threads)
    before = place.previous()
    if _still_true(before, facts, list(segmenters)) and _all_there(place, list(segmenters), pairs):
        say("[4/6] predict, [5/6] agree, [6/6] time: nothing has changed")
        return {key: before[key] for key in MEASURED}
    say(f"[4/6] predict: {len(pairs)} images through {' and '.join(segmenters)}")
    with steps("predict"):
        shutil.rmtree(place.predictions, ignore_errors=True)
        outcomes = predict_all(segmenters, pairs, place.predictions)
    _check_scores(plan, outcomes, say)
    insist_on_agreement(outcomes)
    _tell_agreement(outcomes, refused, say)
    say(f"[6/6] time: single images, {threads} thread{'s' if threads > 1 else ''}")
    with steps("time"):
        timed = {name: segmenter for name, segmenter in segmenters.items() if name not in UNTIMED}
        campaign, rows = _time(plan, timed, pairs, threads)
        latency = {row["id"]: _latency(row) for row in rows}
    backends = {
        name: {"artefact": BACKENDS[name], **outcome.to_dict(), "latency": latency.get(name)}
        for name, outcome in outcomes.items()
    }
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    ranking, noise = rank(rows, plan.protocol.seed), campaign.noise.to_dict()
    found = (now, noise, ranking, backends, refused, threads, plan.protocol.to_dict())
    return dict(zip(MEASURED, found, strict=True))


def _still_true(before: Mapping[str, Any], facts: Mapping[str, Any], backends: list[str]) -> bool:
    same = all(before.get(key) == facts[key] for key in DEPENDS_ON) and before.keys() >= set(MEASURED)
    return same and list(before.get("backends", {})) == backends


def _all_there(place: DemoFolder, backends: list[str], pairs: Sequence[Pair]) -> bool:
    return all(
        file_of(place.predictions, name, pair.name).exists()
        for file_of in (mask_file, overlay_file)
        for name in backends
        for pair in pairs
    )


def _check_scores(plan: Plan, outcomes: Mapping[str, Outcome], say: Say) -> None:
    for name, outcome in outcomes.items():
        dice = {scores["name"]: scores["dice"] or 0.0 for scores in outcome.scores["classes"]}
        say(f"      {name}: Dice " + ", ".join(f"{label} {value:.4f}" for label, value in dice.items()))
        low = [f"{label} {dice[label]:.3f} (at least {least})" for label, least in plan.required.items()
               if dice[label] < least]  # fmt: skip
        if low:
            raise TrainingError(
                f"the validation Dice stayed too low with {name}: {', '.join(low)}. "
                "Train longer: unet-edge demo --force --epochs N"
            )


def _tell_agreement(outcomes: Mapping[str, Outcome], refused: Mapping[str, str], say: Say) -> None:
    reference = next(iter(outcomes))
    for name, outcome in outcomes.items():
        if outcome.agreement:
            pixels = f"{outcome.agreement.flipped} of {outcome.agreement.pixels:,} pixels"
            difference = f"largest logit difference {outcome.agreement.max_difference:.1e}"
            say(f"[5/6] agree: {name} and {reference} differ in {pixels}, {difference}")
    for name, reason in refused.items():
        say(f"      {name}: converted, not executed on this machine ({reason})")


def _time(
    plan: Plan, segmenters: Mapping[str, Segmenter], pairs: Sequence[Pair], threads: int
) -> tuple[Campaign, list[dict[str, Any]]]:
    """The middle image through every backend, in processes of their own; a row of results for each."""
    image = pairs[len(pairs) // 2].image
    rows = [
        Row(name, segmenter.backend.path, name, image, threads, options=backend_options(name, threads))
        for name, segmenter in segmenters.items()
    ]
    campaign = run_campaign(rows, plan.protocol)
    if not campaign.complete:
        raise KeyboardInterrupt
    found = [row_data(row, campaign.rows[row.id], plan.protocol.seed, {}) for row in rows]
    for row in found:
        if row["status"] != "ok":
            raise BackendError(f"{row['id']} could not be timed: {row['reason']}")
    return campaign, found


def _latency(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a row."""
    loads = row["startup_ms"]["load"]
    total = {**row["statistics"]["total"], "samples": all_samples(row)}
    stages = {stage: numbers for stage, numbers in row["statistics"].items() if stage != "total"}
    return {"load": {"median": statistics.median(loads), "samples": loads}, "stages": stages, "total": total}
