"""How and where it was measured, in words, out of the results' own fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .words import number, percent, plural

__all__ = ["facts", "noise_text", "protocol_text"]


def protocol_text(results: Mapping[str, Any]) -> list[str]:
    """The protocol as paragraphs."""
    p = results["protocol"]
    least = plural(p["min_samples"], "sample")
    return [
        f"{plural(p['launches'], 'launch')}: in each, every row got a new process, in an order that moves on from "
        "launch to launch. A process imported its runtime, loaded the model, ran it once, then warmed up until three "
        f"windows of images in a row took equally long{_unsteady(results)}.",
        f"Then {plural(p['rounds'], 'round')} a launch: the rows took turns (A B C, C A B, B C A), so that a busy "
        f"moment meets them alike. A turn is untimed images for {p['settle_seconds']:g} s and at least one, then timed "
        f"ones for {p['seconds_per_turn']:g} s and at least {least}, by a monotonic clock in nanoseconds.",
        f"A median is that of the turns' medians. Its {percent(p['confidence'])} interval is a bootstrap over launches "
        "and the rounds within them, widened for the small number of launches (Kalibera and Jones, 2013; Hesterberg, "
        f"2015; seed {results.get('seed')}).",
    ]


def noise_text(results: Mapping[str, Any]) -> str:
    """What the reference loop is, and what it found."""
    noise = results.get("noise") or {}
    what = str(noise.get("what") or "a fixed loop")
    parts = [f"{what[:1].upper()}{what[1:]}, before the run (open circle), once a round, and after."]
    if noise.get("spread") is not None and noise.get("drift") is not None:
        drift = noise["drift"]
        way = "longer" if drift > 0 else "shorter"
        parts.append(f"Spread {percent(noise['spread'])}; {percent(abs(drift))} {way} after the run than before.")
    return " ".join(parts)


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The machine, the versions and the data, as names and values."""
    machine = results["machine"]
    found = [
        ("processor", machine.get("processor")),
        ("cores", _cores(machine)),
        ("memory", f"{machine['memory_bytes'] / 2**30:.0f} GiB" if machine.get("memory_bytes") else None),
        ("system", " ".join(str(machine[key]) for key in ("system", "machine") if machine.get(key))),
        ("clock governor", machine.get("governor")),
        ("power", _text(machine.get("power"))),
        ("ceilings", "; ".join(_ceiling(ceiling) for ceiling in results.get("ceilings") or [])),
        ("Python", machine.get("python")),
        ("packages", ", ".join(f"{name} {version}" for name, version in (machine.get("packages") or {}).items())),
        ("timed on", results.get("origin")),
        ("images", _images(results.get("images") or [])),
        ("measured", str(results.get("created", "")).replace("T", " ").replace("+00:00", " UTC")),
    ]
    return [(name, str(value)) for name, value in found if value]


def _cores(machine: Mapping[str, Any]) -> str | None:
    cores, physical = machine.get("cores"), machine.get("physical_cores")
    if cores and physical and physical != cores:
        return f"{cores} ({physical} physical)"
    return str(cores) if cores else None


def _ceiling(ceiling: Mapping[str, Any]) -> str:
    rates = f"{number(round(ceiling['gflops'], 1))} GFLOP/s, {number(round(ceiling['gbytes_per_s'], 1))} GB/s"
    return f"{rates} with {plural(ceiling['threads'], 'thread')}"


def _images(images: list[Mapping[str, Any]]) -> str:
    sizes = sorted({f"{image['width']} × {image['height']}" for image in images})
    return f"{len(images)} ({', '.join(sizes[:4])}{', …' if len(sizes) > 4 else ''} pixels)" if images else ""


def _unsteady(results: Mapping[str, Any]) -> str:
    ends = [end for row in results["rows"] for end in row.get("warmup") or []]
    never = sum(not end["stationary"] for end in ends)
    return f" ({never} of {plural(len(ends), 'process')} never did within the time allowed)" if never else ""


def _text(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {item}" for name, item in value.items() if item is not None)
    return value if value is None else str(value)
