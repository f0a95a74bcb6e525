"""Mask values as they are written on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unet_edge_runtime.spec import MaskValue

__all__ = ["MaskValueType"]


class MaskValueType(click.ParamType):  # type: ignore[type-arg]
    """A grey or palette value, such as 255, or a colour, such as 255,0,128."""

    name = "VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> MaskValue:
        """Parse "255" into 255 and "255,0,128" into (255, 0, 128)."""
        if isinstance(value, int | tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        numbers = [int(part) for part in parts if part.isascii() and part.isdigit()]
        if len(numbers) == len(parts) == 1 and numbers[0] <= 65535:
            return numbers[0]
        if len(numbers) == len(parts) == 3 and max(numbers) <= 255:
            return numbers[0], numbers[1], numbers[2]
        self.fail(
            f"{value!r} is no mask value: write a number, such as 255, or a colour, such as 255,0,128", param, ctx
        )
