from __future__ import annotations

import copy
import functools

import pytest

from tests.bench.report import sample


@functools.cache
def _made():
    return sample.results()


@pytest.fixture
def results():
    """A whole run of many kinds of rows, the test's own."""
    return copy.deepcopy(_made())
