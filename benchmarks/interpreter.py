"""How fast the reference interpreter is and how much memory it takes, against PyTorch on the same network.

    python benchmarks/interpreter.py
    python benchmarks/interpreter.py --networks small --rounds 9

Networks have random weights: arithmetic does not care. Each is exported to Core ML in fp16, then PyTorch (eager, as it
is loaded), PyTorch in channels_last, and the interpreter's two modes run in turns on one image in one process; figures
are medians of the rounds, ratios are medians of the rounds' own ratios. Memory is what a process of its own reaches
at its peak (Linux only). Writes INTERPRETER.md.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from unet_edge.checkpoint import class_infos, save_checkpoint
from unet_edge.model import UNet, UNetConfig
from unet_edge_export.mil import Interpreter
from unet_edge_runtime.files import write_text
from unet_edge_runtime.spec import ModelSpec

NETWORKS = {
    "small": (UNetConfig(base_channels=16, up="bilinear"), "base 16, bilinear, 1.1 M parameters"),
    "full": (UNetConfig(), "the original's, 31.0 M parameters"),
}
SIZE = (512, 512)
MODES = ("stored", "ideal")


def make(folder: Path, config: UNetConfig) -> tuple[UNet, Path]:
    """A network whose batch norms have seen data, and its package."""
    torch.manual_seed(0)
    model = UNet(config).train()
    with torch.no_grad():
        model(torch.rand(2, 3, 64, 64))
    spec = ModelSpec(channels=3, classes=class_infos([0, 255]), outputs=2, multiple=config.multiple)
    save_checkpoint(folder / "model.pth", model, spec, {})
    # Compiled without the comparison, which random weights are too undecided for.
    from unet_edge_export.to_coreml import write_coreml

    package = folder / "model.mlpackage"
    write_coreml(model.eval(), spec.replace(input_size=SIZE, precision="fp16"), package)
    return model, package


def peak(folder: Path, what: str) -> float:
    """Peak memory in MB of a process that runs one image through `what`."""
    command = [sys.executable, __file__, "--peak", what, "--folder", str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def run_once(folder: Path, what: str) -> None:
    """The child of `peak`."""
    x = np.zeros((*SIZE, 3), np.uint8)
    if what == "torch":
        from unet_edge.checkpoint import load_model

        model, _ = load_model(folder / "model.pth")
        with torch.inference_mode():
            model(torch.from_numpy(x.transpose(2, 0, 1)[None] / np.float32(255)))
    elif what in MODES:
        Interpreter(folder / "model.mlpackage", precision=what).predict({"image": x})
    # Not getrusage, whose maximum a new process inherits from the one that started it.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(int(peak.split()[1]) / 1024)


def measure(name: str, rounds: int) -> list[str]:
    """Lines of the table for one network."""
    config, title = NETWORKS[name]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        model, package = make(folder, config)
        pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
        x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
        last = UNet(config).eval()
        last.load_state_dict(model.state_dict())
        last = last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        nhwc = x.contiguous(memory_format=torch.channels_last)
        readers = {mode: Interpreter(package, precision=mode) for mode in MODES}
        runs: dict[str, Callable[[], object]] = {
            "torch eager": lambda: model(x),
            "torch channels_last": lambda: last(nhwc),
            **{mode: (lambda reader=reader: reader.predict({"image": pixels})) for mode, reader in readers.items()},
        }
        samples: dict[str, list[float]] = {key: [] for key in runs}
        with torch.inference_mode():
            for number in range(rounds + 1):
                for key in list(runs) if number % 2 else list(runs)[::-1]:
                    start = time.perf_counter_ns()
                    runs[key]()
                    if number:  # the first round warms up
                        samples[key].append((time.perf_counter_ns() - start) / 1e6)
        memory = {"torch eager": peak(folder, "torch"), **{mode: peak(folder, mode) for mode in MODES}}
    base = peak_of_nothing()
    lines = []
    for key, values in samples.items():
        ratios = [mine / eager for mine, eager in zip(values, samples["torch eager"], strict=True)]
        used = f"{memory[key] - base:.0f}" if key in memory else ""
        spread = f"{min(values):.0f} to {max(values):.0f}"
        row = (title, key, f"{statistics.median(values):.0f}", spread, f"{statistics.median(ratios):.2f}", used)
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    return lines


def peak_of_nothing() -> float:
    """Peak memory in MB of a process that only imports."""
    return peak(Path(), "nothing")


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("INTERPRETER.md"))
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        run_once(options.folder, options.peak)
        return
    lines = [line for name in options.networks for line in measure(name, options.rounds)]
    text = [
        "# The reference interpreter against PyTorch",
        "",
        f"Made by `python benchmarks/interpreter.py`: one image of 512x512, fp16 packages, {torch.get_num_threads()} "
        f"threads, {options.rounds} interleaved rounds, torch {torch.__version__}, {platform.machine()}. Memory is the "
        "peak above a process that only imports.",
        "",
        "| network | what | median ms | from, to | times torch eager | MB |",
        "|---|---|---|---|---|---|",
        *lines,
    ]
    write_text(options.output, "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
