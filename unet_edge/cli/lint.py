"""`unet-edge lint`."""

from __future__ import annotations

from pathlib import Path

import click

from .common import MODEL_FILE, echo_json


def _print_rules(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from unet_edge_export.mil.lint import render_rules

        click.echo(render_rules())
        context.exit()


@click.command("lint", epilog="Example: unet-edge lint run/best.mlpackage --chip m1 --fail-on warn")
@click.argument("model", type=MODEL_FILE)
@click.option(
    "--chip",
    default="m1",
    show_default=True,
    metavar="NAME",
    help="m1 to m5 or a14 to a18. The default is the oldest: what is clean there is clean on all later ones.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warn"]),
    default="error",
    show_default=True,
    help="Exit with 1 if there is such a finding, or a worse one.",
)
@click.option("--operations", is_flag=True, help="List arithmetic, traffic and weights of every operation.")
@click.option("--all-chips", is_flag=True, help="Add the projection for every chip.")
@click.option("--rules", is_flag=True, is_eager=True, expose_value=False, callback=_print_rules, help="List the rules.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(model: Path, chip: str, fail_on: str, operations: bool, all_chips: bool, as_json: bool) -> None:
    """Check the Core ML package MODEL against the rules of the Neural Engine, on any machine.

    Shows what would leave the Neural Engine, lose time or compute something else, what to do about it, who says so
    and how sure that is; then arithmetic, traffic, weights, and the least time that a prediction can take.
    That time is a projection from published rates, not a measurement.
    """
    if not model.is_dir():
        raise click.ClickException(f"{model}: no Core ML package: lint reads the folder that ends in .mlpackage")

    from unet_edge_export.mil import Package
    from unet_edge_export.mil.lint import find_chip, lint, render
    from unet_edge_runtime.errors import InputError

    try:
        known = find_chip(chip)
    except InputError as error:
        raise click.BadParameter(str(error), param_hint="--chip") from None
    report = lint(Package.open(model), known)
    if as_json:
        echo_json(report.to_dict())
    else:
        click.echo(render(report, all_chips, operations))
    if report.fails(fail_on):
        raise click.exceptions.Exit(1)
