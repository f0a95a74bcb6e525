"""Reading results back: a file that does not follow the schema is refused in one line."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unet_edge_runtime.errors import InputError

from .results import SCHEMA
from .stages import STAGES

__all__ = ["SCHEMA_FILE", "read_results", "schema_of", "schema_problems"]

SCHEMA_FILE = Path(__file__).with_name("results.schema.json")
"""JSON Schema, with a description of every field."""

MAX_BYTES = 256 << 20  # of a file that is read back
MOST = 1e300  # no number in a result is as large; larger integers do not fit a float

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def read_results(path: Path) -> dict[str, Any]:
    """Read a results.json.

    Args:
        path: the file, or the folder that `unet-edge benchmark` wrote it to.

    Raises:
        InputError: missing, damaged, or written by something else.
    """
    path = path / "results.json" if path.is_dir() else path
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size >> 20} MB are too much for benchmark results")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): give results of `unet-edge benchmark`") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: is no JSON: give results of `unet-edge benchmark`") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, str):
        raise InputError(f"{path}: these are no results of `unet-edge benchmark`: give a results.json")
    if schema != SCHEMA:
        raise InputError(f"{path}: its schema is {str(schema)[:60]!r}, this version reads {SCHEMA!r}: measure again")
    if problem := next(itertools.chain(schema_problems(data), _ragged(data)), None):
        raise InputError(f"{path}: is damaged ({problem}): measure again")
    return dict(data)


def schema_of(path: Path) -> str | None:
    """The schema that a file says it follows; None where it says none or is no JSON."""
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    schema = data.get("schema") if isinstance(data, dict) else None
    return schema if isinstance(schema, str) else None


def schema_problems(data: Any) -> Iterator[str]:
    """Where data do not follow the schema, as far as the keywords go that it uses."""
    whole = _schema()
    yield from _problems(data, whole, "results", whole.get("$defs", {}))


@functools.cache
def _schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return loaded


def _problems(value: Any, schema: dict[str, Any], where: str, shared: dict[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        schema = shared[schema["$ref"].rpartition("/")[2]]
    kinds = schema.get("type", list(_TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(_is(value, kind) for kind in kinds):
        yield f"{where} is no {' or '.join(kinds)}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is none of {', '.join(map(str, schema['enum']))}"
    if "exclusiveMinimum" in schema and value is not None and value <= schema["exclusiveMinimum"]:
        yield f"{where} is not above {schema['exclusiveMinimum']}"
    if isinstance(value, dict):
        yield from (f"{where} has no {name}" for name in schema.get("required", ()) if name not in value)
        for name, part in schema.get("properties", {}).items():
            if name in value:
                yield from _problems(value[name], part, f"{where}.{name}", shared)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _problems(item, schema["items"], f"{where}[{index}]", shared)


def _is(value: Any, kind: str) -> bool:
    # bool is an int to Python, not to JSON; NaN and infinity are floats to Python, and nothing to JSON.
    if isinstance(value, (bool, int, float)) and kind in ("integer", "number"):
        return isinstance(value, _TYPES[kind]) and not isinstance(value, bool) and -MOST < value < MOST
    return isinstance(value, _TYPES[kind])


def _ragged(results: dict[str, Any]) -> Iterator[str]:
    """Rows whose stages do not have the same launches, rounds and samples, of which each turn has one."""
    for index, row in enumerate(results["rows"]):
        samples = [row["samples_ms"][stage] for stage in STAGES]
        shapes = [[[len(turn) for turn in launch] for launch in stage] for stage in samples]
        if any(shape != shapes[0] for shape in shapes) or any(0 in launch for launch in shapes[0]):
            yield f"results.rows[{index}].samples_ms has stages of different lengths, or a turn without samples"
