"""Pairs of real images to plant faults in, and a short way to a diagnosis."""

from __future__ import annotations

import importlib.util

import pytest

from unet_edge.data.cache import FactsCache
from unet_edge.data.doctor.diagnose import diagnose
from unet_edge.data.doctor.look import examine
from unet_edge.data.doctor.splits import SplitOptions, make_split
from unet_edge.data.pairing import pair_files
from unet_edge.data.scan import scan_pairs


@pytest.fixture(scope="session")
def brain(tmp_path_factory):
    """Pairs of brain slices, 24 of them from all over the head."""
    from pathlib import Path

    folder = Path(__file__).resolve().parents[5] / "shared" / "data" / "mni152_nilearn"
    if not folder.is_dir():
        if importlib.util.find_spec("nilearn") is None:
            pytest.skip("neither nilearn nor ../shared/data is on this machine")
        from unet_edge.data.sample import make_brain_sample

        folder = tmp_path_factory.mktemp("brain") / "sample"
        make_brain_sample(folder)
    pairs, problems = pair_files(folder / "images", folder / "masks")
    assert not problems
    return pairs[:: len(pairs) // 24][:24]


@pytest.fixture
def look():
    """look(pairs): examines them, with no memory."""
    return lambda pairs: [examine(FactsCache(False), pair) for pair in pairs]


@pytest.fixture
def diagnosed():
    """diagnosed(folders, scale=..., **split): a diagnosis as the command makes it."""

    def make(folders, scale=0.5, ignore=None, has_background=True, **split):
        pairs, problems = pair_files(*folders)
        scan = scan_pairs(pairs, ignore=ignore)
        options = SplitOptions(**split)
        divided = make_split(pairs, options)
        return diagnose(
            pairs, scan, [*problems, *scan.problems], divided, options.describe(),
            scale=scale, has_background=has_background,
        )  # fmt: skip

    return make


@pytest.fixture
def kinds():
    """kinds(diagnosis): {kind: suspicion}."""
    return lambda diagnosis: {suspicion.kind: suspicion for suspicion in diagnosis.suspicions}
