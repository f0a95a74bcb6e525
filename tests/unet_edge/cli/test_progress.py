"""Progress: a bar on a terminal that leaves only the lines behind, plain lines elsewhere."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import textwrap

import pytest

from unet_edge.cli.progress import ConsoleReporter

fcntl = pytest.importorskip("fcntl", reason="pseudo-terminals are needed")
pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")

RUN = """
    import sys, time
    from unet_edge.cli.progress import ConsoleReporter
    reporter = ConsoleReporter()
    for epoch in (1, 2):
        with reporter.epoch(epoch, 2, 12):
            for step in range(6):
                time.sleep(0.11)
                reporter.step(2, 0.5, 1e-3)
                if step == 3:
                    reporter.note("out of memory: the batch is done in two parts")
                    with reporter.validating(2) as done:
                        done("any", "arguments")
                        time.sleep(0.11)
                        done()
                    scores = {"dice": 0.75, "iou": 0.6, "classes": [{"name": "disc", "dice": 0.75}]}
                    reporter.validation(epoch, scores, epoch == 1)
    print('{"dice": 0.75}')
"""
LINES = [
    "out of memory: the batch is done in two parts",
    "  validation: Dice 0.7500, IoU 0.6000 (best so far)  [disc 0.7500]",
    "epoch 1/2: loss 0.5000, N images/s, Ns",
    "out of memory: the batch is done in two parts",
    "  validation: Dice 0.7500, IoU 0.6000  [disc 0.7500]",
    "epoch 2/2: loss 0.5000, N images/s, Ns",
]

WHOLE = (
    r"epoch \d/2 +\d+%(  \[[#-]+\])?(  \d+s left)?(  loss 0.5000)?(  Dice 0.7500)?(  run \d+s left)?"
    r"(  [\d.]+ images/s)?(  \d+ MB)?"
)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def on_terminal(columns, script=RUN):
    """What a script writes on a terminal of so many columns (standard error), and its standard output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return shown.decode(), process.communicate(timeout=60)[0].decode()


def screen(shown):
    """What is left to see: carriage returns go back, characters replace what stands there."""
    lines = []
    for line in shown.replace("\r\n", "\n").split("\n"):
        cells = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return lines


def without_times(lines):
    return [re.sub(r"[\d.]+ images/s, \d+s", "N images/s, Ns", line) for line in lines]


@pytest.mark.parametrize("columns", [120, 40])
def test_a_terminal_shows_a_bar_and_keeps_only_the_lines(columns):
    shown, output = on_terminal(columns)
    assert without_times(screen(shown)) == [*LINES, ""]
    assert output == '{"dice": 0.75}\n'
    frames = [frame for frame in re.split(r"[\r\n]+", shown) if re.match(r"epoch \d/2 +\d+%", frame)]
    assert max(len(frame) for frame in frames) < columns
    assert all(re.fullmatch(WHOLE, frame.rstrip()) for frame in frames)  # what does not fit is left out, not cut
    assert any("loss 0.5000" in frame for frame in frames)
    assert any(re.match(r"epoch 2/2 +\d+%.*\ds left", frame) for frame in frames)
    assert any(frame.startswith("validation") for frame in re.split(r"[\r\n]+", shown))
    if columns == 120:
        assert re.search(r"epoch 2/2 +67%  \[#{20}-{10}\].*Dice 0.7500.* images/s  \d+ MB", shown)
        assert re.search(r"epoch 1/2.*run \d+s left", shown)


def test_a_pipe_gets_plain_lines_and_standard_output_only_the_result():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(RUN)], capture_output=True, text=True, timeout=60)
    assert without_times(done.stderr.splitlines()) == LINES
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x1b]", done.stderr)
    assert done.stdout == '{"dice": 0.75}\n'


def test_an_error_begins_on_a_line_of_its_own():
    script = """
        import sys, time
        from unet_edge.cli.progress import ConsoleReporter
        reporter = ConsoleReporter()
        try:
            with reporter.epoch(1, 2, 12):
                time.sleep(0.11)
                reporter.step(2, 0.5, 1e-3)
                raise ValueError
        except ValueError:
            print("Error: interrupted", file=sys.stderr)
    """
    shown, _ = on_terminal(80, script)
    assert "epoch 1/2  17%" in shown
    assert screen(shown) == ["Error: interrupted", ""]


def test_a_long_epoch_tells_once_a_minute_where_there_is_no_terminal():
    stream, clock = io.StringIO(), Clock()
    reporter = ConsoleReporter(stream, clock)
    with reporter.epoch(2, 4, 600, whole=1000):
        for _ in range(60):
            clock.now += 3
            reporter.step(5, 0.25, 1e-3, dice=0.9)
    lines = stream.getvalue().splitlines()
    told = [re.sub(r", \d+ MB|, [\d.]+ GB", "", line) for line in lines]
    # 600 images at 5 in 3 seconds; the two epochs after this one are whole.
    assert told == [
        "  epoch 2/4  17%, 5:00 left, loss 0.2500, Dice 0.9000, run 25:00 left, 1.7 images/s",
        "  epoch 2/4  33%, 4:00 left, loss 0.2500, Dice 0.9000, run 24:00 left, 1.7 images/s",
        "  epoch 2/4  50%, 3:00 left, loss 0.2500, Dice 0.9000, run 23:00 left, 1.7 images/s",
        "epoch 2/4: loss 0.2500, 1.7 images/s, 3:00",
    ]


def test_the_loss_is_smoothed_and_the_speed_recent():
    stream, clock = io.StringIO(), Clock()
    reporter = ConsoleReporter(stream, clock)
    with reporter.epoch(1, 1, 10_000):
        for _ in range(200):
            clock.now += 1
            reporter.step(1, 1.0, 1e-3)
        for _ in range(100):
            clock.now += 0.5
            reporter.step(1, 0.0, 1e-3)
        clock.now += 60
        reporter.step(0, 0.0, 1e-3)
    last = stream.getvalue().splitlines()[-2]
    loss = float(re.search(r"loss ([\d.]+)", last)[1])
    assert 0.05 < loss < 0.3
    # The last line has the mean and the speed of the whole epoch.
    assert stream.getvalue().splitlines()[-1].startswith("epoch 1/1: loss 0.6645, 1.0 images/s")


def test_validations_count_for_the_time_left_but_not_for_the_speed():
    stream, clock = io.StringIO(), Clock()
    reporter = ConsoleReporter(stream, clock)
    with reporter.epoch(1, 3, 10):
        for step in range(10):
            clock.now += 1
            reporter.step(1, 0.5, 1e-3)
            if step == 4:
                with reporter.validating(2) as done:
                    clock.now += 100
                    done()
    assert "epoch 1/3: loss 0.5000, 1.0 images/s, 1:50" in stream.getvalue()
    with reporter.epoch(2, 3, 100):
        clock.now += 61
        reporter.step(61, 0.5, 1e-3)
    # 39 images, then 100 in the last epoch, and a validation of 100 seconds in each.
    assert "run 5:39 left, 1.0 images/s" in stream.getvalue().splitlines()[-2]


def test_a_validation_in_the_middle_leaves_the_speed_of_the_bar_as_it_was():
    stream, clock = io.StringIO(), Clock()
    reporter = ConsoleReporter(stream, clock)
    with reporter.epoch(1, 1, 1000):
        reporter.step(1, 0.5, 1e-3)
        with reporter.validating(2):
            clock.now += 900
        for _ in range(61):
            clock.now += 1
            reporter.step(2, 0.5, 1e-3)
    told = [line for line in stream.getvalue().splitlines() if line.startswith("  epoch 1/1")]
    assert "2.0 images/s" in told[-1]


def test_absent_and_many_classes_in_the_line_of_a_validation():
    stream = io.StringIO()
    classes = [{"name": f"c{label}", "dice": None if label == 0 else 0.5} for label in range(14)]
    ConsoleReporter(stream).validation(1, {"dice": None, "iou": None, "classes": classes}, False)
    line = stream.getvalue().rstrip("\n")
    assert line.startswith("  validation: Dice absent, IoU absent  [c0 absent, c1 0.5000, ")
    assert line.endswith("c11 0.5000, and 2 more]")
