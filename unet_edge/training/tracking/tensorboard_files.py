"""TensorBoard event files in the run's folder: no account, no network."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from unet_edge_runtime.errors import MissingExtraError

from .values import Example, Histogram

try:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import RecordWriter, summary
except ModuleNotFoundError as error:
    raise MissingExtraError((error.name or "tensorboard").split(".")[0], "train", "it") from None

__all__ = ["TensorBoardFiles"]


class TensorBoardFiles:
    """Writes `FOLDER/tensorboard`.

    Each call is one write to the file, so that a killed process loses nothing that it had recorded. torch's
    SummaryWriter keeps a queue instead, and prints a traceback where it cannot write.

    Args:
        folder: of the run.
        config: shown as text.
        start_step: TensorBoard forgets what other files in the folder hold after it.
    """

    def __init__(self, folder: Path, config: dict[str, Any], start_step: int) -> None:
        place = folder / "tensorboard"
        place.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files in the order of their names, and a resumed run may start within a second.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._stream = (place / name).open("xb", buffering=0)
        self._append(Event(file_version="brain.Event:2"))
        first = start_step + 1 if start_step else 0
        self._append(Event(step=first, session_log=SessionLog(status=SessionLog.START)))
        text = json.dumps(config, indent=2, ensure_ascii=False, default=str)
        self.note = f"tensorboard: tensorboard --logdir {place}"
        self._record(start_step, summary.text("config", "    " + text.replace("\n", "\n    ")))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record numbers."""
        self._record(step, *(summary.scalar(tag, value) for tag, value in values.items()))

    def histograms(self, step: int, histograms: dict[str, Histogram]) -> None:
        """Record the spread of weights and gradients."""
        self._record(step, *(_histogram(tag, histogram) for tag, histogram in histograms.items()))

    def examples(self, step: int, examples: list[Example]) -> None:
        """Record image, truth and prediction in a row, one picture an example."""
        self._record(step, *(summary.image(f"examples/{e.name}", e.picture(), dataformats="HWC") for e in examples))

    def flush(self) -> None:
        """Nothing: nothing is kept back."""

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _record(self, step: int, *parts: Any) -> None:
        self._append(Event(step=step, summary=Summary(value=[value for part in parts for value in part.value])))

    def _append(self, event: Any) -> None:
        event.wall_time = time.time()
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        left = record.getbuffer()
        while left:
            left = left[self._stream.write(left) :]


def _histogram(tag: str, histogram: Histogram) -> Any:
    return summary.histogram_raw(
        tag,
        min=float(histogram.edges[0]),
        max=float(histogram.edges[-1]),
        num=float(histogram.counts.sum()),
        sum=histogram.total,
        sum_squares=histogram.squares,
        bucket_limits=histogram.edges[1:].tolist(),
        bucket_counts=histogram.counts.tolist(),
    )
