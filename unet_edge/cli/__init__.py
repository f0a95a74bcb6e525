"""The command line. Each command lives in the file of its name and is imported only when it runs."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

__all__ = ["main"]

# The one-line help stands here, so that `unet-edge --help` imports nothing but click.
COMMANDS = {
    "train": "Train a U-Net on a folder of images and a folder of masks.",
    "evaluate": "Score a model on images with masks.",
    "export": "Convert a checkpoint to ONNX or Core ML and check that it agrees.",
    "predict": "Write masks for images.",
    "verify": "Compare models on real images: outputs, labels, scores; layer by layer if asked.",
    "benchmark": "Measure how fast models are, how far from the limit, and whether they agree.",
    "inspect": "Show everything that a model knows about itself.",
    "lint": "Check a Core ML package against the rules of the Neural Engine.",
    "mac-report": "On a Mac: run a Core ML package on every compute unit and write down everything.",
    "models": "List the pretrained models that come with unet-edge.",
    "data": "Check a data set, download a public one, or make the sample one.",
    "demo": "Train, export, predict and compare on real images, and show it on one page.",
}


class LazyGroup(click.Group):
    """A group whose commands are modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command's module; its `command` is the command."""
        if name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(f"unet_edge.cli.{name.replace('-', '_')}")
        except ModuleNotFoundError as error:
            raise _missing(error, name) from None
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; a misspelt one gets the closest name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; our errors become one message and exit code 1."""
        from unet_edge_runtime.errors import UnetEdgeError

        try:
            return super().invoke(ctx)
        except UnetEdgeError as error:
            raise click.ClickException(str(error)) from None
        except ModuleNotFoundError as error:
            raise _missing(error, ctx.invoked_subcommand or "unet-edge") from None
        except BrokenPipeError:
            raise  # `| head` has seen enough: click ends without a word
        except OSError as error:
            raise click.ClickException(f"{error.filename or 'a file'}: {error.strerror or error}") from None
        except KeyboardInterrupt:
            raise click.ClickException("interrupted") from None


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="unet-edge", prog_name="unet-edge")
def main() -> None:
    """Take a U-Net from images and masks to an edge device, and prove that nothing was lost.

    \b
    unet-edge train    --images photos --masks masks --out run
    unet-edge export   run/best.pth --format onnx --format coreml
    unet-edge predict  -m run/best.onnx new_photos -o new_masks
    unet-edge evaluate run/best.onnx --images photos --masks masks
    """


def _missing(error: ModuleNotFoundError, command: str) -> click.ClickException:
    package = (error.name or "a package").partition(".")[0]
    extra = "train" if package in ("torch", "matplotlib", "jinja2") else "export"
    by_command = {
        "export": "export",
        "lint": "export",
        "mac-report": "export",
        "demo": "all",
        "verify": "all",
        "benchmark": "all",
    }
    extra = by_command.get(command, extra)
    if package.startswith("unet_edge") and os.environ.get("UNET_EDGE_DEBUG"):
        raise error
    return click.ClickException(f"{command} needs {package}: pip install 'unet-edge[{extra}]'")


if __name__ == "__main__":
    sys.exit(main())
