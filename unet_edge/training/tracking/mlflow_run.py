"""MLflow: files in the run's folder, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unet_edge_runtime.errors import MissingExtraError

from .channel import without_password
from .memory import recall, remember
from .values import Example, Histogram

__all__ = ["MlflowRun"]

# MLflow 3 wants a database unless told otherwise; files need no package more than the light client.
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")  # half a minute; MLflow's own is four

try:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException
except ModuleNotFoundError as error:
    raise MissingExtraError((error.name or "mlflow").split(".")[0], "mlflow", "it") from None

PARAMETERS = 100  # in one request, by MLflow's limit
METRICS = 500  # in one request; MLflow's limit is 1000
LONGEST = 500  # characters of a parameter's value, by the limit of MLflow 1


class MlflowRun:
    """One run, the same one again when it is resumed.

    MLflow cannot take back what it has: a step that a killed run had recorded is left out when it is done again.

    Args:
        folder: of the run; its name becomes the run's.
        config: recorded as parameters, `train.epochs` and the like.
        start_step: not needed: the store tells what is recorded.
    """

    def __init__(self, folder: Path, config: dict[str, Any], start_step: int) -> None:
        store = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlruns").resolve().as_uri()
        self._client = MlflowClient(tracking_uri=store)
        self._waiting: list[Any] = []
        self._recorded: dict[str, int] = {}
        shown = without_password(store)
        known = recall(folder, "mlflow")
        if not (known.get("store") == shown and self._continue(str(known.get("id")))):
            self._id = self._create(folder.resolve().name, config)
            remember(folder, "mlflow", {"store": shown, "id": self._id})
        self.note = f"mlflow: run {self._id} in {shown}"

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record numbers; a slow server gets those of several steps at a time."""
        now = round(time.time() * 1000)  # milliseconds, as MLflow counts
        for tag, value in values.items():
            name = _allowed(tag)
            if step > self._recorded.get(name, -1):
                self._waiting.append(Metric(name, value, now, step))

    def histograms(self, step: int, histograms: dict[str, Histogram]) -> None:
        """Nothing: MLflow has no histograms."""

    def examples(self, step: int, examples: list[Example]) -> None:
        """Record image, truth and prediction in a row, one picture an example."""
        for example in examples:
            self._client.log_image(self._id, example.picture(), key=_allowed(f"examples/{example.name}"), step=step)

    def flush(self) -> None:
        """Send the numbers that wait."""
        while self._waiting:
            self._client.log_batch(self._id, metrics=self._waiting[:METRICS])
            del self._waiting[:METRICS]

    def close(self) -> None:
        """Send the rest."""
        self.flush()
        self._client.set_terminated(self._id)

    def _continue(self, run_id: str) -> bool:
        """Take up a run; False where the store does not have it."""
        try:
            run = self._client.get_run(run_id)
        except MlflowException:
            return False
        self._id = run_id
        self._client.update_run(run_id, status="RUNNING")
        for name in run.data.metrics:
            self._recorded[name] = max(metric.step for metric in self._client.get_metric_history(run_id, name))
        return True

    def _create(self, name: str, config: dict[str, Any]) -> str:
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "unet-edge")
        experiment = self._client.get_experiment_by_name(title)
        group = experiment.experiment_id if experiment else self._client.create_experiment(title)
        run_id = str(self._client.create_run(group, run_name=name).info.run_id)
        parameters = [Param(_allowed(key), str(value)[:LONGEST]) for key, value in _flat(config)]
        for start in range(0, len(parameters), PARAMETERS):
            self._client.log_batch(run_id, params=parameters[start : start + PARAMETERS])
        return run_id


def _allowed(name: str) -> str:
    """A name of letters, digits and `_-. /` only, which is what every version of MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", name)


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested dictionaries as pairs of dotted names and values."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
