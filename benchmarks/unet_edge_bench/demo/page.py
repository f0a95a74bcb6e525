"""One HTML page that shows the demo's results: everything inside it, nothing fetched, no script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unet_edge.data.pairing import Pair
from unet_edge.html import Picture, PictureRow, page_template
from unet_edge_bench.timing.stages import STAGES
from unet_edge_export.reference_backend import CoreMLReferenceBackend
from unet_edge_runtime.files import write_text
from unet_edge_runtime.spec import ModelSpec

from .artefacts import BACKENDS, UNTIMED, title_of
from .charts import curve_charts, strip_chart
from .folder import DemoFolder
from .pictures import difference_maps, gallery

__all__ = ["render", "write_page"]

TEMPLATE = Path(__file__).with_name("page.html.j2")
NOT_EXECUTED = "converted, not executed on this machine"
PROVES = f"this {CoreMLReferenceBackend.proves}"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
ROWS = 5  # images shown
FORMATS = {"checkpoint": "Checkpoint", "onnx": "ONNX", "coreml": "Core ML"}


def write_page(place: DemoFolder, results: Mapping[str, Any], pairs: Sequence[Pair]) -> Path:
    """Draw the pictures from the demo's folder and write the page there, atomically.

    Args:
        place: holds the predictions and gets the page.
        results: as `results.json` holds them.
        pairs: the validation pairs.
    """
    spec = ModelSpec.from_dict(results["spec"], str(place.results))
    backends = list(results["backends"])
    rows = gallery(pairs, place.predictions, backends, spec, ROWS)
    maps = difference_maps(pairs, place.predictions, backends, spec)
    write_text(place.page, render(results, rows, maps))
    return place.page


def render(results: Mapping[str, Any], rows: Sequence[PictureRow], maps: Sequence[Picture]) -> str:
    """The page as text; names in `results` are escaped."""
    filters: dict[str, Callable[..., str]] = {
        "dice": _dice, "ms": _ms, "size": _size, "sci": _sci, "duration": _duration,
        "backend": title_of, "whole": "{:,}".format,
    }  # fmt: skip
    template = page_template(TEMPLATE, "the demo's page", **filters)
    spec, backends = results["spec"], results["backends"]
    colors = ["rgb({}, {}, {})".format(*info["color"]) for info in spec["classes"]]
    timed = {name: one for name, one in backends.items() if one["latency"]}
    strips, ticks = strip_chart({name: one["latency"]["total"] for name, one in timed.items()})
    return template.render(
        r=results,
        rows=rows,
        maps=maps,
        colors=colors,
        reference=next(iter(backends)),
        others={name: one for name, one in backends.items() if one["agreement"]},
        charts=curve_charts(results["training"], colors, spec["background"]),
        timed=timed,
        strips=strips,
        ticks=ticks,
        stages=STAGES,
        seconds={step["name"]: step for step in results["steps"]},
        scores=_score_table(results),
        ranking=_ranking(results),
        artefacts=_artefacts(results),
        facts=_facts(spec),
    )


def _score_table(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a class: label, name, what is required, Dice of each backend."""
    backends, required = results["backends"], results["required"]
    return [
        {
            "name": info["name"],
            "required": required.get(info["name"]),
            "dice": [one["scores"]["classes"][label]["dice"] for one in backends.values()],
        }
        for label, info in enumerate(results["spec"]["classes"])
    ]


def _ranking(results: Mapping[str, Any]) -> list[str]:
    """What the timings say about the backends, two by two; nothing on a machine that was not steady."""
    if not results["noise"]["reliable"]:
        return [f"The machine was not steady ({'; '.join(results['noise']['reasons'])}): these times rank nothing."]
    totals = {name: one["latency"]["total"] for name, one in results["backends"].items() if one["latency"]}
    sentences = []
    for pair in results["ranking"]:
        first, second = (title_of(pair[side]) for side in ("first", "second"))
        if pair["verdict"] == "cannot tell":
            sentences.append(f"Whether {first} or {second} is faster cannot be told from this look.")
            continue
        times = " against ".join(_ms(totals[pair[side]]["median"]) for side in ("first", "second"))
        sentences.append(f"{first} took less time than {second}: {times} ms in the median.")
    return sentences


def _artefacts(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each artefact with what became of it on this machine; those that could not be made, with the reason."""
    rows = []
    for format, artefact in results["artefacts"].items():
        by = [name for name, one in results["backends"].items() if one["artefact"] == format]
        ran = [title_of(name) for name in by]
        reasons = [reason for name, reason in results["refused"].items() if BACKENDS.get(name) == format]
        status = f"executed by {' and '.join(ran)}" if ran else NOT_EXECUTED
        # The reference interpreter speaks for the file alone, so a device that refused is still worth a word.
        reason = "" if set(by) - set(UNTIMED) else "; ".join([*([PROVES] if by else []), *reasons])
        rows.append({**artefact, "title": FORMATS[format], "ran": bool(ran), "status": status, "reason": reason})
    for format, note in results["notes"].items():
        rows.append({"title": FORMATS[format], "ran": False, "status": note, "reason": "", "bytes": None})
    return rows


def _facts(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the model knows about itself, as words."""
    size, provenance = spec["input_size"], spec["provenance"]
    normalised = f"(x - {spec['mean']}) / {spec['std']}" if spec["mean"] else "none beyond [0, 1]"
    facts = [
        ("image", {1: "grey, 1 channel", 3: "RGB, 3 channels", 4: "RGBA, 4 channels"}[spec["channels"]]),
        ("scale", f"{spec['scale']:g}, {spec['resample']}"),
        ("network input", f"{size[0]} × {size[1]} (height × width)" if size else "any size"),
        ("padding", f"{spec['padding']}, below and right, to multiples of {spec['multiple']}"),
        ("normalisation", normalised),
        ("output", f"{spec['head']}, {spec['outputs']} channels"),
        ("precision", spec["precision"]),
        ("background", "left out of mean scores" if spec["background"] is not None else "none"),
        ("graph", f"{spec['input_name']} → {spec['output_name']}, {provenance.get('format', '')}".rstrip(", ")),
        ("weights", f"sha256 {str(provenance.get('checkpoint_sha256', 'unknown'))[:16]}…"),
    ]
    made = provenance.get("exported_with", {})
    return [*facts, ("exported with", ", ".join(f"{name} {version}" for name, version in made.items()))]


def _dice(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _sci(value: float) -> str:
    """1.1 × 10⁻⁴; plain where that is short."""
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.2g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}\u00a0×\u00a010" + str(int(power)).translate(SUPERSCRIPTS)


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 60:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
