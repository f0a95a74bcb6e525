"""Options in sections, for a command that has too many for one list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from unet_edge_runtime.errors import InputError

__all__ = ["CheckedText", "SectionedHelp", "section"]


class _Option(click.Option):
    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionedHelp(click.Command):
    """A command whose --help shows its options under the headings that `section` gave them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections in the order in which their first options were declared."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record:
                sections.setdefault(getattr(parameter, "section", "Other"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def section(title: str) -> Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """`click.option` for options under this heading."""

    def option(*names: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return click.option(*names, cls=_Option, section=title, **settings)

    return option


class CheckedText(click.ParamType):  # type: ignore[type-arg]
    """A text that a function accepts; what the function raises is a usage error.

    Args:
        name: shown in the help.
        check: raises `InputError` for a text that will not do.
    """

    def __init__(self, name: str, check: Callable[[str], Any]) -> None:
        self.name = name
        self.check = check

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The name as it is: what is typed is not in capitals."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        try:
            self.check(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)
        return str(value)
