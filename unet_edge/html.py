"""What every page needs: a template that escapes, and pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_edge_runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL import Image

__all__ = ["Picture", "PictureRow", "page_template", "picture_uri"]


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with what stands above and below it."""

    title: str
    uri: str
    note: str = ""


@dataclass(frozen=True)
class PictureRow:
    """The pictures of one image."""

    name: str
    pictures: list[Picture]


def page_template(path: Path, purpose: str, **filters: Callable[..., Any]) -> Template:
    """A template whose values are escaped, and which refuses unknown names.

    Args:
        path: of the template; it may include others of its folder.
        purpose: what the page is for, said where jinja2 is missing.
        filters: by name.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("jinja2", "train", purpose) from None
    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(path.name)


def picture_uri(picture: Image.Image, format: str = "PNG") -> str:
    """A picture as a `data:` address.

    Args:
        picture: any mode that the format can hold.
        format: PNG, or JPEG for photographs.
    """
    stream = io.BytesIO()
    picture.save(stream, format, optimize=True, **({"quality": 82} if format == "JPEG" else {}))
    return f"data:image/{format.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
