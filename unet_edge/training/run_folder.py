"""The folder of a run: configuration, split, checkpoints, metrics, pictures."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import atomic_path, write_json
from unet_edge_runtime.mask import overlay, side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .validation import Look

__all__ = ["RunFolder"]

PENDING = re.compile(r"\.best\.(\d+)\.pth")
STALE = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp(\.\w+)?")  # what `atomic_path` leaves when it is killed


class RunFolder:
    """Names and writers of everything in a run's folder.

    `last.pth` says where the run is. What a validation finds to be the best is written under another name first
    and becomes `best.pth` when a `last.pth` that knows of it is in place: whenever the run is killed, the two fit
    together, or `settle` makes them fit.

    Args:
        path: the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.pth"
        self.last = path / "last.pth"
        self.config = path / "config.json"
        self.split = path / "split.json"
        self.metrics = path / "metrics.jsonl"
        self.curves = path / "curves.png"
        self.overlays = path / "overlays"

    def check_free(self) -> None:
        """Raises `InputError` where no new run can be put."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file: give a folder for the run")
        if self.last.exists() or self.best.exists():
            raise InputError(
                f"{self.path} already holds a run: continue it with --resume {self.path}, or choose another folder"
            )

    def check_resumable(self) -> None:
        """Raises `InputError` where there is no run to go on with."""
        if not self.last.exists():
            raise InputError(f"{self.last} does not exist: {self.path} holds no run that could be resumed")

    def start(self, config: dict[str, Any], split: dict[str, Any]) -> None:
        """Write what is known before the first step.

        Raises:
            InputError: the folder already holds a run.
        """
        self.check_free()
        self.metrics.unlink(missing_ok=True)
        (self.path / "tracking.json").unlink(missing_ok=True)  # of an earlier run's trackers
        self._remove_leftovers()
        write_json(self.config, config)
        write_json(self.split, split)

    def read_split(self) -> dict[str, Any]:
        """The split as `start` wrote it. Raises `InputError` where it is missing or damaged."""
        try:
            return json.loads(self.split.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.split}: cannot be read ({error}): is {self.path} the folder of a run?") from None

    def pending_best(self, step: int) -> Path:
        """Where the best checkpoint of that step waits until `commit_best`."""
        return self.path / f".best.{step}.pth"

    def commit_best(self, step: int) -> None:
        """Make the waiting checkpoint of that step, if there is one, the best one."""
        pending = self.pending_best(step)
        if pending.exists():
            os.replace(pending, self.best)

    def settle(self, best_step: int, records: int) -> None:
        """Bring the folder to the state that `last.pth` describes, after a kill at any moment.

        Args:
            best_step: the step of the best validation that it knows; a later one is computed again.
            records: lines of the metrics file that it knows.
        """
        self.commit_best(best_step)
        self._remove_leftovers()
        lines = self.metrics.read_bytes().splitlines(keepends=True) if self.metrics.exists() else []
        with atomic_path(self.metrics) as temporary:
            temporary.write_bytes(b"".join(line for line in lines[:records] if line.endswith(b"\n")))

    def _remove_leftovers(self) -> None:
        for path in self._hidden_files():
            if STALE.fullmatch(path.name) or PENDING.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _hidden_files(self) -> Iterator[Path]:
        for folder in (self.path, self.overlays):
            yield from list(folder.glob(".*"))

    def read_config(self) -> dict[str, Any]:
        """The configuration as `start` wrote it. Raises `InputError` where it is missing or damaged."""
        try:
            config = json.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.config}: cannot be read ({error}): is {self.path} the folder of a run?") from None
        return config if isinstance(config, dict) else {}

    def append(self, record: dict[str, Any]) -> None:
        """Add one line to the metrics file."""
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            os.fsync(stream.fileno())  # a checkpoint will count on it

    def read_metrics(self) -> list[dict[str, Any]]:
        """All complete lines of the metrics file."""
        if not self.metrics.exists():
            return []
        records = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue  # a kill in the middle of an append leaves half a line
        return records

    def draw_curves(self) -> None:
        """Loss, learning rate and Dice over the epochs as one PNG."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        records = self.read_metrics()
        train = [r for r in records if r["event"] == "train"]
        validation = [r for r in records if r["event"] == "validation" and r["dice"] is not None]
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
        left.plot([r["epoch"] for r in train], [r["loss"] for r in train], marker=".", label="training loss")
        left.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
        rate = left.twinx()
        rate.plot([r["epoch"] for r in train], [r["learning_rate"] for r in train], color="0.7", linestyle="--")
        rate.set(ylabel="learning rate (dashed)", ylim=(0, None))
        # Below the classes: of a single one it is the same curve.
        right.plot([r["epoch"] for r in validation], [r["dice"] for r in validation], "k.-", linewidth=3, label="mean")
        names = [c["name"] for c in validation[0]["classes"]] if validation else []
        palette = matplotlib.colormaps["tab10" if len(names) <= 10 else "tab20"]
        right.set_prop_cycle(color=palette(range(palette.N)))
        for label, name in enumerate(names[:20]):
            scores = [(r["epoch"], r["classes"][label]["dice"]) for r in validation]
            present = [(epoch, dice) for epoch, dice in scores if dice is not None]
            right.plot([e for e, _ in present], [d for _, d in present], linewidth=1, alpha=0.7, label=name)
        right.set(xlabel="epoch", ylabel="validation Dice", ylim=(None, 1))
        right.grid(alpha=0.3)
        for axes in (left, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
        if validation:
            right.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))  # beside the curves
        with atomic_path(self.curves) as temporary:
            figure.savefig(temporary, dpi=120)
        pyplot.close(figure)

    def draw_overlays(self, looks: Sequence[Look]) -> None:
        """Image, truth and prediction side by side, one PNG an image."""
        for look in looks:
            spec, image = look.result.spec, look.result.image
            picture = side_by_side(
                overlay(image, look.truth, spec, opacity=0), overlay(image, look.truth, spec), look.result.overlay
            )
            with atomic_path(self.overlays / f"{look.pair.name}.png") as temporary:
                picture.save(temporary)
