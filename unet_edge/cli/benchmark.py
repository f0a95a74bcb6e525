"""`unet-edge benchmark`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import EXISTING_FOLDER, MODEL_FILE, echo_json, say

if TYPE_CHECKING:
    from unet_edge_bench.timing.benchmark import Order

RESULTS = click.Path(exists=True, path_type=Path)
OPTIONS: list[Callable[[Any], Any]] = [
    click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=MODEL_FILE),
    click.option("--images", type=EXISTING_FOLDER, help="Folder of images.  [default: a drawn picture]"),
    click.option("--masks", type=EXISTING_FOLDER, help="Folder of their masks: adds Dice and IoU to every row."),
    click.option("--mask-suffix", help="What masks have after the image's name.  [default: found by itself]"),
    click.option("--sizes", metavar="HxW,...", help="Of the network's input.  [default: what the image gives]"),
    click.option("--batch-sizes", default="1", show_default=True, metavar="N,...", help="Images a call."),
    click.option("--threads", metavar="N,...", help="Inside one operation.  [default: the physical cores]"),
    click.option("--streams", default="1", show_default=True, metavar="N,...", help="Threads that share one model."),
    click.option("--precisions", default="fp32", show_default=True, metavar="...", help="Of checkpoints: bf16, fp16."),
    click.option("--compute-units", default="cpu,gpu,ane,all", show_default=True, metavar="...", help="On a Mac."),
    click.option("--device", default="cpu", show_default=True, help="For checkpoints: cpu, cuda or mps."),
    click.option("--reference", type=MODEL_FILE, help="What the others must agree with.  [default: the first MODEL]"),
    click.option("--launches", type=click.IntRange(2), help="New processes for each row.  [default: 5]"),
    click.option("--rounds", type=click.IntRange(2), help="Turns of each row in a launch.  [default: 5]"),
    click.option("--seconds", type=click.FloatRange(0), help="Least duration of a turn.  [default: 1]"),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the resampling."),
    click.option("--quick", is_flag=True, help="About a minute for two or three rows: fewer and shorter turns."),
    click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder to write.  [default: benchmark]"),
    click.option("--compare", type=RESULTS, metavar="BASE.json", help="Say what changed since these results."),
    click.option("--fail-if-slower", metavar="5%", help="With --compare: exit code 1 where surely slower, or broken."),
    click.option("--json", "as_json", is_flag=True, help="Print the results as JSON."),
]  # fmt: skip


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@click.command(epilog="Example: unet-edge benchmark run/best.pth run/best.onnx --images photos --masks masks --quick")
@_with_options
def command(
    models: tuple[Path, ...],
    output: Path | None,
    compare: Path | None,
    fail_if_slower: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Measure how fast each MODEL is, how far from the machine's limit, and whether it agrees with the first.

    Every model, backend and choice runs in processes of its own, in turns; medians come with 95 % intervals, and where
    these do not allow to say which is faster, that is said. A model that does not agree with the reference is shown
    as wrong and never ranked.

    Instead of models, one saved results.json can be given: `unet-edge benchmark NEW.json --compare BASE.json`.
    """
    from unet_edge_bench.timing.arguments import share
    from unet_edge_bench.timing.compare import compare_results, succeeded
    from unet_edge_bench.timing.schema import read_results

    if fail_if_slower and not compare:
        raise click.UsageError("--fail-if-slower needs --compare BASE.json")
    limit = share(fail_if_slower, "--fail-if-slower") if fail_if_slower else None
    base = read_results(compare) if compare else None
    saved = len(models) == 1 and models[0].suffix.lower() == ".json"
    results = read_results(models[0]) if saved else _measure(models, given, output or Path("benchmark"))
    comparison = compare_results(base, results, limit) if base else None
    page = None
    try:
        page = _write(results, output if saved else output or Path("benchmark"))
    finally:
        # A full disk must not take with it what was measured.
        _tell(results, comparison, page, as_json)
    if not succeeded(results, comparison):
        sys.exit(1)


def _measure(models: tuple[Path, ...], given: dict[str, Any], output: Path) -> dict[str, Any]:
    from unet_edge_bench.timing.benchmark import Listener, benchmark
    from unet_edge_bench.timing.output import check_output
    from unet_edge_bench.timing.progress import Progress

    check_output(output)
    order = _order(models, given)
    progress = Progress()
    try:
        return benchmark(order, Listener(say, progress))
    finally:
        progress.clear()


def _order(models: tuple[Path, ...], given: dict[str, Any]) -> Order:
    from unet_edge_bench.timing.arguments import numbers, protocol_of, sizes, words
    from unet_edge_bench.timing.benchmark import Order
    from unet_edge_bench.timing.choices import Choices

    choices = Choices(
        models=models,
        sizes=sizes(given["sizes"], "--sizes") if given["sizes"] else (),
        batches=numbers(given["batch_sizes"], "--batch-sizes"),
        threads=numbers(given["threads"], "--threads") if given["threads"] else (),
        streams=numbers(given["streams"], "--streams"),
        precisions=words(given["precisions"], "--precisions"),
        compute_units=words(given["compute_units"], "--compute-units"),
        device=given["device"],
        reference=given["reference"],
    )
    images, masks = _images(given["images"], given["masks"], given["mask_suffix"])
    protocol = protocol_of(given["quick"], given["launches"], given["rounds"], given["seconds"], given["seed"])
    order = Order(choices, protocol, images, masks, command=shlex.join(["unet-edge", *sys.argv[1:]]))
    return order.quick() if given["quick"] else order


def _images(images: Path | None, masks: Path | None, suffix: str | None) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    from unet_edge.data.pairing import pair_files
    from unet_edge_runtime.errors import DatasetError
    from unet_edge_runtime.image import image_files

    if images is None:
        if masks is not None:
            raise click.UsageError("--masks needs --images")
        return (), ()
    if masks is None:
        return tuple(image_files(images)), ()
    pairs, problems = pair_files(images, masks, suffix)
    if problems:
        raise DatasetError(problems)
    return tuple(pair.image for pair in pairs), tuple(pair.mask for pair in pairs)


def _write(results: dict[str, Any], folder: Path | None) -> Path | None:
    from unet_edge_bench.timing.output import write_output

    return write_output(results, folder) if folder else None


def _tell(results: dict[str, Any], comparison: dict[str, Any] | None, page: Path | None, as_json: bool) -> None:
    from unet_edge_bench.timing.text import comparison_text, results_text

    if as_json:
        echo_json(results if comparison is None else {**results, "comparison": comparison})
        return
    click.echo(results_text(results))
    if comparison:
        click.echo(f"\n{comparison_text(comparison)}")
    if page:
        click.echo(f"\n{page}")
