from __future__ import annotations

import pytest

from unet_edge_bench.report.words import bytes_text, duration, interval, joined, number, percent, plural, scientific


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.234, "1.23"), (56.13, "56.1"), (123.4, "123"), (1234.5, "1,234"), (7.0, "7")],
)
def test_three_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((56.123, 55.4, 56.8), "56.1 [55.4–56.8] ms"),
        ((123.04, 122.98, 123.11), "123.04 [122.98–123.11] ms"),
        ((1.9412, 1.902, 1.984), "1.94 [1.90–1.98] ms"),
        ((5.0, None, None), "5 ms"),
        ((5.0, 5.0, 5.0), "5.00 [5.00–5.00] ms"),
    ],
)
def test_an_interval_shows_the_digits_in_which_its_ends_differ(estimate, text):
    assert interval(dict(zip(("median", "low", "high"), estimate, strict=True)), "ms") == text


def test_units():
    assert [duration(ms) for ms in (3.14159, 310.2, 2412, 185_000)] == ["3.14 ms", "310 ms", "2.41 s", "3 min 5 s"]
    assert [bytes_text(n) for n in (812_000, 4_342_618, 124e6, 1.12e9)] == ["812 kB", "4.34 MB", "124 MB", "1.12 GB"]
    shares = [percent(share).replace("\u00a0", " ") for share in (0, 0.0001, 0.0321, 0.784, 1.5)]
    assert shares == ["0 %", "<0.1 %", "3.2 %", "78 %", "150 %"]
    assert [scientific(x) for x in (0, 0.61, 3.6e-5)] == ["0", "0.61", "3.6 × 10⁻⁵"]


def test_lists_and_plurals():
    assert [joined(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert joined(["a", "b"], "or") == "a or b"
    assert [plural(1, "launch"), plural(5, "launch"), plural(35, "process"), plural(2, "thread")] == [
        "1 launch",
        "5 launches",
        "35 processes",
        "2 threads",
    ]
