"""The demo's measurements: scores, agreement and latency of every backend that runs here."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from unet_edge.data.pairing import Pair
from unet_edge_runtime.backend import load_backend
from unet_edge_runtime.errors import TrainingError
from unet_edge_runtime.image import read_image
from unet_edge_runtime.segmenter import Segmenter

from .agreement import Outcome, insist_on_agreement, mask_file, overlay_file, predict_all
from .artefacts import BACKENDS, UNTIMED, Artefact, backend_options, open_backends
from .demo_folder import DemoFolder, Steps
from .latency import measure, measure_load, total
from .machine import available_cores, load_average

if TYPE_CHECKING:
    from .demo import Plan

__all__ = ["measured_results"]

MEASURED = ("measured", "load", "backends", "refused", "threads", "protocol")
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
    load = load_average()
    with steps("time"):
        timed = {name: segmenter for name, segmenter in segmenters.items() if name not in UNTIMED}
        latency = _latency(plan, timed, pairs, threads)
    backends = {
        name: {"artefact": BACKENDS[name], **outcome.to_dict(), "latency": latency.get(name)}
        for name, outcome in outcomes.items()
    }
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return dict(zip(MEASURED, (now, load, backends, refused, threads, asdict(plan.protocol)), strict=True))


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


def _latency(
    plan: Plan, segmenters: Mapping[str, Segmenter], pairs: Sequence[Pair], threads: int
) -> dict[str, dict[str, Any]]:
    """Timings of the middle image, as plain data by backend."""
    timings = measure(segmenters, read_image(pairs[len(pairs) // 2].image), plan.protocol)
    found = {}
    for name, stages in timings.items():
        path, options = segmenters[name].backend.path, backend_options(name, threads)
        load = measure_load(lambda: load_backend(path, name, **options), plan.protocol.loads)  # noqa: B023
        found[name] = {
            "load": load.to_dict(),
            "stages": {stage: timing.to_dict() for stage, timing in stages.items()},
            "total": total(stages).to_dict(),
        }
    return found
