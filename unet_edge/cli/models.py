"""`unet-edge models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .common import echo_json

if TYPE_CHECKING:
    from unet_edge_runtime.pretrained import Pretrained


@click.command("models", epilog="Example: unet-edge predict -m nuclei photos -o masks")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def command(as_json: bool) -> None:
    """List the pretrained models that come with unet-edge.

    Their names stand wherever a command takes a MODEL. Each has a card: what it was trained on and how, how good it
    is, and what it is not for.
    """
    from unet_edge_runtime.pretrained import pretrained, pretrained_names

    models = [pretrained(name) for name in pretrained_names()]
    if as_json:
        echo_json([_facts(model) for model in models])
        return
    for model in models:
        scores = model.scores
        facts = f"Dice {scores['dice']:.4f}, IoU {scores['iou']:.4f} on {scores['images']} images; {model.licence}"
        click.echo(f"{model.name}: {model.purpose}; {model.bytes / 1e6:.2f} MB; {facts}; card {model.card}")


def _facts(model: Pretrained) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(model), "path": str(model.path), "card": str(model.card)}
