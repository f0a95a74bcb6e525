"""`python -m unet_edge_bench MODEL...`: measure models on a board that has numpy, Pillow and their runtime."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from unet_edge_runtime.errors import UnetEdgeError
from unet_edge_runtime.files import write_json
from unet_edge_runtime.image import image_files

from .timing.arguments import numbers, protocol_of, share, sizes, words
from .timing.benchmark import Listener, Order, benchmark
from .timing.choices import COMPUTE_UNITS, Choices
from .timing.compare import compare_results, succeeded
from .timing.output import check_folder
from .timing.progress import Progress
from .timing.schema import read_results
from .timing.text import comparison_text, results_text

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write JSON if asked; 0, or 1 for an error, no timed row, or one that became slower."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    options = parser.parse_args(given)
    if options.fail_if_slower and not options.compare:
        parser.error("--fail-if-slower needs --compare BASE.json")
    try:
        return _run(options, shlex.join(["python", "-m", "unet_edge_bench", *given]))
    except UnetEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("error: interrupted before anything was measured", file=sys.stderr)
    return 1


def _run(options: argparse.Namespace, command: str) -> int:
    base = read_results(options.compare) if options.compare else None
    limit = share(options.fail_if_slower, "--fail-if-slower") if options.fail_if_slower else None
    if options.json:
        check_folder(options.json.parent, "--json")
    progress = Progress()
    listener = Listener(lambda text: print(text, file=sys.stderr), progress)
    results = benchmark(_order(options, command), listener)
    progress.clear()
    print(results_text(results))
    comparison = compare_results(base, results, limit) if base else None
    if comparison:
        print(f"\n{comparison_text(comparison)}")
    if options.json:
        write_json(options.json, results)
    return 0 if succeeded(results, comparison) else 1


def _order(options: argparse.Namespace, command: str) -> Order:
    choices = Choices(
        models=tuple(options.models),
        sizes=sizes(options.sizes, "--sizes") if options.sizes else (),
        batches=numbers(options.batch_sizes, "--batch-sizes"),
        threads=numbers(options.threads, "--threads") if options.threads else (),
        streams=numbers(options.streams, "--streams"),
        compute_units=words(options.compute_units, "--compute-units"),
    )
    images = tuple(image_files(options.images)) if options.images else ()
    protocol = protocol_of(options.quick, options.launches, options.rounds, options.seconds, options.seed)
    order = Order(choices, protocol, images, command=command)
    return order.quick() if options.quick else order


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m unet_edge_bench", description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="the first is the reference")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of images; by default one is drawn")
    parser.add_argument("--sizes", metavar="HxW,...", help="of the network's input; by default what the image gives")
    parser.add_argument("--batch-sizes", default="1", metavar="N,...", help="images a call")
    parser.add_argument("--threads", metavar="N,...", help="inside one operation; by default the physical cores")
    parser.add_argument("--streams", default="1", metavar="N,...", help="threads that use a model at the same time")
    parser.add_argument("--compute-units", default=",".join(COMPUTE_UNITS), metavar="...", help="of Core ML, on a Mac")
    parser.add_argument("--launches", type=int, metavar="N", help="new processes for each row")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each row in a launch")
    parser.add_argument("--seconds", type=float, metavar="S", help="least duration of a turn")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument("--quick", action="store_true", help="about a minute for two or three rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    parser.add_argument("--compare", type=Path, metavar="BASE.json", help="say what changed since then")
    parser.add_argument(
        "--fail-if-slower",
        metavar="SHARE",
        help="with --compare: exit 1 if surely slower by more, as 5%%",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
