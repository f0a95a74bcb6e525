"""Weights & Biases: offline in the run's folder unless somebody is logged in."""

from __future__ import annotations

import netrc
import os
import re
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from unet_edge_runtime.errors import MissingExtraError

from .memory import recall, remember
from .values import Example, Histogram

__all__ = ["WandbRun"]

# Not settings of our own, so that whoever sets them in the environment has the last word, and because versions differ
# in which settings they know. The console stays ours: wandb would wrap it, and print in the middle of a progress bar.
ENVIRONMENT = {
    "WANDB_CONSOLE": "off",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_FINISH_TIMEOUT": "45",
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

try:
    import wandb
except ModuleNotFoundError as error:
    raise MissingExtraError((error.name or "wandb").split(".")[0], "wandb", "it") from None


class WandbRun:
    """One run, the same one again when it is resumed.

    A step is recorded once: steps that a killed run had recorded are left out when they are done again, because
    W&B cannot take back what it has.

    Args:
        folder: of the run; its name becomes the run's.
        config: shown as the run's configuration.
        start_step: not needed: the folder tells what is recorded.
    """

    def __init__(self, folder: Path, config: dict[str, Any], start_step: int) -> None:
        place = folder / "wandb"
        place.mkdir(parents=True, exist_ok=True)
        known = str(recall(folder, "wandb").get("id", ""))
        run_id = (
            (known if re.fullmatch(r"[\w-]+", known) else "") or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        )
        self._mark = place / f"recorded-{run_id}"
        self._recorded, self._step = _read_number(self._mark), -1
        mode = _mode(wandb.setup().settings)
        try:
            self._run = _start(folder, run_id, mode, config)
        except wandb.errors.Error:
            if mode == "offline":
                raise
            mode = "offline"  # the server does not answer: what is recorded can be uploaded later
            wandb.teardown()  # or else the run counts as in use
            self._run = _start(folder, run_id, mode, config)
        remember(folder, "wandb", {"id": run_id})
        upload = f"offline; upload it with: wandb sync {place}/offline-run-*-{run_id}"
        self.note = f"wandb: {upload if mode == 'offline' else self._run.url or mode}"

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record numbers."""
        self._log(step, values)

    def histograms(self, step: int, histograms: dict[str, Histogram]) -> None:
        """Record the spread of weights and gradients."""
        self._log(step, {tag: wandb.Histogram(np_histogram=(h.counts, h.edges)) for tag, h in histograms.items()})

    def examples(self, step: int, examples: list[Example]) -> None:
        """Record image, truth and prediction in a row, one picture an example."""
        self._log(step, {f"examples/{e.name}": wandb.Image(e.picture(), caption=e.name) for e in examples})

    def flush(self) -> None:
        """Nothing: nothing is kept back."""

    def close(self) -> None:
        """Write or upload the rest."""
        self._run.finish()
        self._write_mark(self._step)

    def _log(self, step: int, values: dict[str, Any]) -> None:
        if step <= self._recorded or not values:
            return
        self._run.log(values, step=step)
        if step > self._step:
            self._write_mark(self._step)  # wandb writes a step when the next one begins
            self._step = step

    def _write_mark(self, step: int) -> None:
        """Note up to which step all is recorded; without a flush to the disk, because it is done at every step."""
        if step > self._recorded:
            temporary = self._mark.with_suffix(".tmp")
            temporary.write_text(str(step), encoding="ascii")
            os.replace(temporary, self._mark)


def _start(folder: Path, run_id: str, mode: Any, config: dict[str, Any]) -> Any:
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", "unet-edge"),
        name=os.environ.get("WANDB_NAME", folder.resolve().name),
        id=run_id,
        resume="allow",
        dir=str(folder),
        mode=mode,
        config=config,
    )


def _mode(settings: Any) -> str:
    """What WANDB_MODE or `wandb offline` chose; nothing online without a login, which would ask for one."""
    if settings.mode not in (None, "online", "run"):
        return str(settings.mode)
    return "online" if _is_logged_in(settings) else "offline"


def _is_logged_in(settings: Any) -> bool:
    if settings.api_key or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    hosts = {urlsplit(str(settings.base_url)).hostname, "api.wandb.ai"}
    chosen = os.environ.get("NETRC")
    for path in [Path(chosen)] if chosen else [Path("~/.netrc"), Path("~/_netrc")]:
        try:
            known = netrc.netrc(path.expanduser())
        except (OSError, RuntimeError, netrc.NetrcParseError):
            continue
        if any(known.authenticators(host) for host in hosts if host):
            return True
    return False


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return -1
