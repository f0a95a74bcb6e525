"""The whole benchmark: compare, measure the machine, measure the rows, count what they cost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unet_edge_runtime.errors import BackendError

from .campaign import Campaign, run_campaign
from .ceilings import highest, measure_ceiling
from .choices import Choices, Model, describe, rows_of
from .limits import limits_of, plan_of
from .pictures import Pictures
from .plan import DEFAULT, Protocol, Row
from .quality import Images, judge
from .results import build_results

__all__ = ["COMPARED", "SCORED", "Listener", "Order", "benchmark", "spread"]

COMPARED = 16
"""Most images on which outputs are compared, without masks."""

QUICK_COMPARED = 4
"""Likewise, where it has to be quick."""

CHANGE = 0.1
"""Relative difference of two looks at the machine's ceiling from which a run is doubted."""

SCORED = 128
"""Most images with masks, on which outputs are compared and scored."""


@dataclass(frozen=True)
class Order:
    """What to do.

    Attributes:
        choices: the matrix.
        protocol: how often.
        images: of the user; the middle one is timed, all (up to a bound) are compared on.
        masks: one an image, or none.
        compared: most images on which outputs are compared, without masks.
        command: written into the results.
        ceiling_seconds: for each part of the measurement of the machine.
        profile_runs: of each row's layers.
    """

    choices: Choices
    protocol: Protocol = DEFAULT
    images: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()
    compared: int = COMPARED
    command: str = ""
    ceiling_seconds: float = 0.5
    profile_runs: int = 10

    def quick(self) -> Order:
        """The same with less of everything but the rows' own protocol."""
        return replace(self, compared=QUICK_COMPARED, ceiling_seconds=0.2, profile_runs=5)


@dataclass(frozen=True)
class Listener:
    """Who is told.

    Attributes:
        say: a line for people.
        progress: steps done, steps in all, what comes next.
    """

    say: Callable[[str], None] = lambda _: None
    progress: Callable[[int, int, str], None] = lambda *_: None


def benchmark(order: Order, listener: Listener | None = None) -> dict[str, Any]:
    """Measure. After the first turn, Ctrl-C ends it early with what is there.

    Args:
        order: what.
        listener: is told what happens.

    Returns:
        Results as in `results.schema.json`.

    Raises:
        InputError: an image cannot be read, or the choices make no sense.
        ModelFileError: a model is missing or of an unknown kind.
        BackendError: no model can be opened, or the machine cannot be measured.
    """
    models = describe(order.choices)
    if models[0].spec is None:
        # A speed without agreement says nothing, and there is nothing to agree with.
        raise BackendError(f"the reference cannot be opened: {models[0].problem}; or name another with --reference")
    with tempfile.TemporaryDirectory() as folder:
        pictures = Pictures(Path(folder), order.images, models[0].spec)
        run = _Run(order, listener or Listener(), rows_of(models, order.choices, pictures), pictures)
        return run.results()


class _Run:
    """One benchmark, step by step."""

    def __init__(
        self, order: Order, listener: Listener, pairs: Sequence[tuple[Model, Row]], pictures: Pictures
    ) -> None:
        self.order, self.listener, self.pairs, self.pictures = order, listener, pairs, pictures
        self.rows = [row for _, row in pairs]
        self.extras: dict[str, dict[str, Any]] = {row.id: _facts(model, row, pictures) for model, row in pairs}
        self.compared = spread(order.images, SCORED if order.masks else order.compared)
        self.looks: list[list[dict[str, Any]]] = []

    def results(self) -> dict[str, Any]:
        """Do everything."""
        self._announce()
        self._judge()
        self._look_at_the_machine()
        campaign = run_campaign(self.rows, self.order.protocol, self.listener.progress)
        if not any(any(measured.seconds) for measured in campaign.rows.values()) and not campaign.complete:
            raise KeyboardInterrupt
        try:
            if campaign.complete:
                self._look_again(campaign)
                self._count(campaign)
        except KeyboardInterrupt:
            campaign.complete = False
        return build_results(
            self.rows,
            campaign,
            self.order.protocol,
            images=self.pictures.facts([self.order.images[index] for index in self.compared]),
            origin=self.pictures.origin,
            command=self.order.command,
            ceilings=highest(self.looks),
            extras=self.extras,
        )

    def _announce(self) -> None:
        timed = sum(not (row.untimed or row.refused) for row in self.rows)
        protocol = self.order.protocol
        for problem in dict.fromkeys(model.problem for model, _ in self.pairs if model.problem):
            self.listener.say(f"cannot be measured: {problem}")
        rows = f"{timed} row{'' if timed == 1 else 's'}"
        self.listener.say(
            f"{rows}, {protocol.launches} launches of {protocol.rounds} rounds: about "
            f"{_minutes(protocol.seconds(timed))}, and what comparing outputs takes; timed on {self.pictures.origin}"
        )

    def _judge(self) -> None:
        """Agreement and scores of each model, which all its rows share."""
        models = list({id(model): model for model, _ in self.pairs}.values())
        reference, threads = models[0], max(row.threads for row in self.rows)
        images = Images(
            tuple(self.order.images[index] for index in self.compared) or (self.pictures.plain(),),
            tuple(self.order.masks[index] for index in self.compared) if self.order.masks else (),
        )
        for number, model in enumerate(models):
            self.listener.progress(number, len(models), f"compare {model.path.name}")
            if model.spec is not None:
                self._share(model, judge(reference, model, images, threads))

    def _share(self, model: Model, found: Mapping[str, Any]) -> None:
        for failure in (found["agreement"] or found["scores"] or {}).get("failures", ()):
            self.listener.say(f"{model.path.name}: left out of agreement and scores: {failure}")
        for other, row in self.pairs:
            if other is model:
                agreement = found["agreement"] and {"reference": self.rows[0].id, **found["agreement"]}
                self.extras[row.id].update(agreement=agreement, scores=found["scores"])

    def _look_at_the_machine(self) -> None:
        counts = sorted({row.threads for row in self.rows})
        look = []
        for number, threads in enumerate(counts):
            self.listener.progress(number, len(counts), "measure the machine")
            look.append(measure_ceiling(threads, self.order.ceiling_seconds))
        self.looks.append(look)

    def _look_again(self, campaign: Campaign) -> None:
        """What cannot be measured afterwards must not take with it what was."""
        try:
            self._look_at_the_machine()
        except BackendError as error:
            campaign.noise.doubts.append(f"the machine's rates could not be measured after the run ({error})")
        else:
            campaign.noise.doubts += _doubts(*self.looks)

    def _count(self, campaign: Campaign) -> None:
        ceilings = highest(self.looks)
        for number, (model, row) in enumerate(self.pairs):
            if row.id in campaign.rows:
                self.listener.progress(number, len(self.pairs), f"layers of {row.label}")
                measured = campaign.rows[row.id]
                self.extras[row.id].update(limits_of(row, model, measured, ceilings, self.order.profile_runs))
                self.extras[row.id]["plan"] = plan_of(row, model, measured)


def spread(items: Sequence[Any], limit: int) -> list[int]:
    """Indices of at most `limit` items, evenly spread."""
    return [index * len(items) // min(limit, len(items)) for index in range(min(limit, len(items)))]


def _facts(model: Model, row: Row, pictures: Pictures) -> dict[str, Any]:
    """What is known of a row before, or without, its being timed."""
    if model.spec is None:
        return {}
    told = {"precision": model.spec.precision, "head": model.spec.head, "proves": model.proves}
    return {"facts": {**told, "size": row.size, "image_size": pictures.size_of(row.image)}}


def _doubts(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[str]:
    """What it means when the machine's own rate changed while the rows were timed."""
    return [
        f"with {one['threads']} thread{'' if one['threads'] == 1 else 's'} the highest rate of arithmetic was "
        f"{one['gflops']:.0f} GFLOP/s before and {two['gflops']:.0f} after"
        for one, two in zip(before, after, strict=True)
        if abs(two["gflops"] / one["gflops"] - 1) > CHANGE
    ]


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
