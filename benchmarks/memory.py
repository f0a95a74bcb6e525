"""What activation checkpointing and smaller parts of a batch save in memory, and what they cost in time.

    python benchmarks/memory.py
    python benchmarks/memory.py --widths 64 --size 640 960 --device cuda

Each choice does whole training steps (loss ce+dice, RMSprop) on the same random batch. Times: all choices in turns in
one process, forwards and backwards, and the ratio to "none" is taken within each round, so that whatever else the
machine does meets all of them alike. Peak memory: on CUDA what torch allocated at most; on a CPU what a process of
its own holds at most, above one that did a step on tiny images (Linux only). Kept: what autograd holds between forward
and backward pass. Estimate: by which `--checkpointing auto` decides. Prints a table and writes MEMORY.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from unet_edge.device import pick_device
from unet_edge.losses import make_loss
from unet_edge.model import UNet, UNetConfig
from unet_edge.training.config import TrainConfig
from unet_edge.training.engine import Engine
from unet_edge.training.memory import saved_bytes, step_bytes
from unet_edge_runtime.files import write_text

CHOICES = {
    "none": ("none", 1),
    "encoder": ("encoder", 1),
    "all": ("all", 1),
    "all, one image at a time": ("all", 0),
}
MIB = 1 << 20
TINY = (32, 32)
# glibc keeps blocks below 32 MiB in one heap, where freed ones leave gaps; from a smaller threshold on each is its own.
HEAPS: tuple[dict[str, str], ...] = ({}, {"MALLOC_MMAP_THRESHOLD_": "1000000"})
COLUMNS = (
    *("base channels", "checkpointing", "kept, MiB", "peak, MiB", "peak without gaps, MiB", "estimate, MiB"),
    *("step, s", "times none", "from, to"),
)
HEAD = "| " + " | ".join(COLUMNS) + " |"


def make_engine(width: int, choice: str, args: argparse.Namespace) -> Engine:
    """An engine with the same first weights for every choice."""
    policy, parts = CHOICES[choice]
    torch.manual_seed(0)
    model = UNet(UNetConfig(base_channels=width, up="bilinear")).train()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-5, momentum=0.9)
    config = TrainConfig(
        batch_size=args.batch, accumulate=parts or args.batch, checkpointing=policy, precision=args.precision
    )
    return Engine(model, optimizer, make_loss("ce+dice"), config, pick_device(args.device))


def make_batch(count: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and labels."""
    torch.manual_seed(1)
    return torch.rand(count, 3, *size), torch.randint(0, 2, (count, *size), dtype=torch.uint8)


def step_once(engine: Engine, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Seconds of a step."""
    start = time.perf_counter()
    engine.step(*batch)
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)
    return time.perf_counter() - start


def kept_bytes(engine: Engine, batch: tuple[torch.Tensor, torch.Tensor]) -> int:
    """What autograd keeps of one part of the batch."""
    images = batch[0].tensor_split(engine.micro)[0].to(engine.device, memory_format=engine.layout)
    with saved_bytes(engine.model) as storages, engine.precision.autocast():
        engine.model(images)
    return sum(storages.values())


def estimate(engine: Engine, args: argparse.Namespace) -> int:
    """What the estimate says of one part of the batch."""
    shape = (-(-args.batch // engine.micro), 3, *args.size)
    return step_bytes(engine.model.config, shape, engine.model.checkpointing, engine.precision.bytes_per_value)


def peak_bytes(width: int, choice: str, args: argparse.Namespace) -> tuple[int, int]:
    """The most memory that two steps take, the second with the optimizer's values from the first; and without gaps."""
    if pick_device(args.device).type == "cuda":
        engine, batch = make_engine(width, choice, args), make_batch(args.batch, args.size)
        step_once(engine, batch)
        torch.cuda.reset_peak_memory_stats(engine.device)
        before = torch.cuda.memory_allocated(engine.device)
        step_once(engine, batch)
        peak = torch.cuda.max_memory_allocated(engine.device) - before
        return peak, peak
    with_gaps, without = (child_peak(args, width, choice, more) - child_peak(args, width, "", more) for more in HEAPS)
    return with_gaps, without


def child_peak(args: argparse.Namespace, width: int, choice: str, environment: dict[str, str]) -> int:
    """Peak of a process of its own, in bytes."""
    size, batch = [str(side) for side in args.size], str(args.batch)
    command = [sys.executable, __file__, "--child", choice, "--widths", str(width), "--size", *size, "--batch", batch]
    command += ["--device", args.device, "--precision", args.precision]
    environment = {**os.environ, **environment}
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()[-1])


def run_child(args: argparse.Namespace) -> None:
    """The process of `child_peak`; without a choice it does a step on tiny images, which loads all code."""
    batch = make_batch(args.batch, args.size)
    engine = make_engine(args.widths[0], args.child or "none", args)
    step_once(engine, make_batch(args.batch, TINY))
    if args.child:
        step_once(engine, batch)
        step_once(engine, batch)
    # Not getrusage, whose maximum a new process inherits from the one that started it.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(int(peak.split()[1]) * 1024)


def measure(width: int, args: argparse.Namespace) -> list[str]:
    """Rows of the table for one network."""
    batch = make_batch(args.batch, args.size)
    engines = {choice: make_engine(width, choice, args) for choice in CHOICES}
    seconds: dict[str, list[float]] = {choice: [] for choice in CHOICES}
    for number in range(args.rounds + 1):
        for choice in list(CHOICES) if number % 2 else list(CHOICES)[::-1]:
            passed = step_once(engines[choice], batch)
            if number:  # the first round warms up
                seconds[choice].append(passed)
    rows = []
    for choice, engine in engines.items():
        ratios = [mine / plain for mine, plain in zip(seconds[choice], seconds["none"], strict=True)]
        sizes = (kept_bytes(engine, batch), *peak_bytes(width, choice, args), estimate(engine, args))
        cells = (
            str(width),
            choice,
            *(f"{size / MIB:.0f}" for size in sizes),
            f"{statistics.median(seconds[choice]):.2f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
        )
        rows.append("| " + " | ".join(cells) + " |")
        print(rows[-1], flush=True)
    return rows


def write(args: argparse.Namespace, rows: list[str]) -> None:
    """The table as a document."""
    device = pick_device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    command = " ".join(["python benchmarks/memory.py", *sys.argv[1:]])
    made = f"batches of {args.batch} images of {args.size[0]}x{args.size[1]}, {args.precision}, bilinear U-Nets"
    where = f"{device.type} ({name}), torch {torch.__version__}, {platform.machine()}"
    text = (
        "# Memory and time of a training step\n\n"
        f"Made by `{command}`: {made}; {where}; {args.rounds} interleaved rounds. Kept is what autograd holds between "
        "forward and backward pass (of a part of the batch), peak what a step takes beside what was there before it, "
        "without gaps the same with MALLOC_MMAP_THRESHOLD_=1000000 in the environment (glibc), estimate what "
        "`--checkpointing auto` expects. Other work may have shared the machine: read the ratios, which "
        "are taken within each round, not the seconds.\n\n"
        f"{HEAD}\n{'|---' * len(COLUMNS)}|\n" + "\n".join(rows) + "\n"
    )
    write_text(Path(__file__).with_name("MEMORY.md"), text)


def main() -> None:
    """The command, or one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--size", type=int, nargs=2, default=[320, 480])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        return run_child(args)
    print(HEAD)
    return write(args, [row for width in args.widths for row in measure(width, args)])


if __name__ == "__main__":
    main()
