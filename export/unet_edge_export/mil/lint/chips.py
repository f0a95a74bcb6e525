"""What is known about the Neural Engines of Apple's chips, each fact with its source.

Apple publishes operations a second and nothing else; limits and measured rates come from people who measured.
Limits hold for a generation of the engine, which a Mac chip shares with the iPhone chip of its year (M1 = A14,
M2 = A15, M3 = A16, M4 = A17, M5 = A18: ANEForge docs/cross-chip.md, "M(n) = H(n+12)", and the order of the A chips).
Pro and Max versions of a chip have the same engine and faster memory; an Ultra has two.
"""

from __future__ import annotations

from dataclasses import dataclass

from unet_edge_runtime.errors import InputError

__all__ = ["CHIPS", "DEFAULT_CHIP", "Chip", "Generation", "Peak", "find_chip"]

_ANEFORGE = "ANEForge bench/results/ROOFLINES.md"
_MADERIX = "maderix/ANE benchmarks/ANE_BENCHMARK_REPORT.md"
_DEVICES = "hollance/neural-engine docs/supported-devices.md"
_COREMLTOOLS = "coremltools docs"
_APPLE_SPECS = "Apple technical specifications"
_MEMORY = "memory type and bus width (Wikipedia, Apple A series)"

_PALETTES = frozenset({"constexpr_lut_to_dense", "constexpr_sparse_to_dense"})
_AFFINE = _PALETTES | {"constexpr_affine_dequantize"}
_ALL_FORMS = _AFFINE | {
    "constexpr_blockwise_shift_scale",
    "constexpr_lut_to_sparse",
    "constexpr_sparse_blockwise_shift_scale",
}


@dataclass(frozen=True)
class Generation:
    """Limits that all engines of one generation share (ANEForge docs/cross-chip.md, docs/op-catalog.md).

    Attributes:
        number: 1 for the M1's and A14's, counting up.
        measured: whether the limits were measured on it, not predicted from the compiler's tables.
        kernel_width: widest convolution kernel.
        kernel_height: highest convolution kernel.
        side: largest height or width of a tensor.
        channels: most channels of a tensor.
        resizes: whether resizing and reflected padding run in hardware (the texture engine).
        slices_columns: whether a slice that starts inside a row is exact for values above 4094.
        streams: forms of compressed weights that are decompressed while they are read (docs/cross-chip.md; the
            catalogue says of sparse weights that they are only from the M3 on).
    """

    number: int
    measured: bool
    kernel_width: int
    kernel_height: int
    side: int
    channels: int
    resizes: bool
    slices_columns: bool
    streams: frozenset[str]


@dataclass(frozen=True)
class Peak:
    """A rate of fp16 arithmetic: `tflops` 10^12 operations a second, of which `what`, according to `source`."""

    tflops: float
    what: str
    source: str


@dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
        name: as `--chip` takes it.
        generation: limits of its Neural Engine.
        claimed: Apple's figure, in fp16; where Apple counts int8 operations, half of it. None: not published.
        measured: fastest published measurement, None where there is none.
        bandwidth: of the memory of the base version, GB/s.
        bandwidth_source: where that number is from.
    """

    name: str
    generation: Generation
    claimed: Peak | None
    measured: Peak | None
    bandwidth: float
    bandwidth_source: str

    @property
    def peak(self) -> Peak:
        """What a projection counts with: the measurement, or Apple's figure where nobody has measured."""
        peak = self.measured or self.claimed
        assert peak is not None, f"{self.name}: a chip needs a rate"
        return peak


FLOOR_MS = 0.1
"""Least time of one prediction: 0.1 to 0.23 ms of dispatch on every chip measured (ANEForge, maderix/ANE)."""

LARGEST_WEIGHT = 224 << 20
"""Bytes of one weight that an M2 Pro still placed on the Neural Engine (a public placement study)."""

LARGEST_PROGRAM = 2 << 30
"""Bytes of all weights together (the same study)."""

_G1 = Generation(1, True, 13, 29, 16384, 65536, False, False, _PALETTES)
_G2 = Generation(2, True, 15, 32, 16384, 65536, True, False, _AFFINE)
_G3 = Generation(3, False, 15, 32, 16384, 65536, True, False, _ALL_FORMS)
_G4 = Generation(4, False, 15, 32, 65536, 65536, True, True, _ALL_FORMS)
_G5 = Generation(5, True, 15, 32, 65536, 65536, True, True, _ALL_FORMS)


def _claim(tops: float, source: str = _DEVICES, int8: bool = False) -> Peak:
    what = f"half of Apple's {tops:g} TOPS, which count int8" if int8 else f"Apple's {tops:g} TOPS"
    return Peak(tops / 2 if int8 else tops, what, source)


_CHIPS = (
    Chip("m1", _G1, _claim(11), Peak(4.6, "matrix products, M1 Max", _ANEFORGE), 68, _APPLE_SPECS),
    Chip("m2", _G2, _claim(15.8), Peak(3.4, "matrix products, M2 Pro", _ANEFORGE), 100, _APPLE_SPECS),
    Chip("m3", _G3, _claim(18, _APPLE_SPECS), Peak(16.8, "convolutions, M3 Pro", _MADERIX), 100, _APPLE_SPECS),
    Chip("m4", _G4, _claim(38, int8=True), Peak(19, "chained convolutions", _MADERIX), 120, _APPLE_SPECS),
    Chip("m5", _G5, None, Peak(18.8, "convolutions, M5 Pro", "aosama/astronomical #540"), 153, _APPLE_SPECS),
    Chip("a14", _G1, _claim(11), None, 34, _MEMORY),
    Chip("a15", _G2, _claim(15.8), None, 34, _MEMORY),
    Chip("a16", _G3, _claim(17, _COREMLTOOLS), None, 51, _MEMORY),
    Chip("a17", _G4, _claim(35, _COREMLTOOLS, int8=True), None, 51, _MEMORY),
    Chip("a18", _G5, _claim(35, int8=True), None, 60, _MEMORY),
)

CHIPS = {chip.name: chip for chip in _CHIPS}
"""Every chip that is known here, by name."""

DEFAULT_CHIP = "m1"
"""The oldest: its limits are the narrowest, so what lints clean for it lints clean for all later ones."""


def find_chip(name: str) -> Chip:
    """The chip called `name`: "m1", "M2 Pro" or "a17-pro", upper or lower case; Pro and Max share the base's engine.

    Raises:
        InputError: no such chip here.
    """
    plain = name.lower().removeprefix("apple").translate(str.maketrans("", "", " -_"))
    for suffix in ("pro", "max", "bionic"):
        plain = plain.removesuffix(suffix)
    if plain not in CHIPS:
        raise InputError(f"no facts about a chip {name!r}: choose one of {', '.join(CHIPS)}")
    return CHIPS[plain]
