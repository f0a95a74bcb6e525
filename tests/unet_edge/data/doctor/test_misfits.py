"""Masks of real images, mirrored, moved, exchanged; and left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from unet_edge.data.doctor.fit import TURNS, edge_ranks, mask_edges, measure_fit
from unet_edge.data.doctor.misfits import find_misfits
from unet_edge.data.pairing import pair_files
from unet_edge_runtime.mask import read_mask


@pytest.fixture
def real_pairs(real_data, brain):
    """real_pairs(name): two dozen pairs of a real data set."""

    def find(name):
        if name == "brain":
            return list(brain)
        folder = real_data(name)
        pairs, _ = pair_files(folder / "images", folder / "masks")
        # The cars from every side, not one car.
        return pairs[::27][:24] if name == "carvana" else pairs[:: len(pairs) // 24][:24]

    return find


def with_mask(pair, mask, folder):
    """The pair with another mask."""
    path = folder / f"{pair.name}.png"
    Image.fromarray(mask.astype(np.uint8)).save(path)
    return replace(pair, mask=path)


def suspected(suspicions):
    return {pair.name: suspicion.kind for suspicion in suspicions for pair in suspicion.pairs}


@pytest.mark.parametrize("name", ["brain", "dsb2018", "isbi2012", "carvana"])
def test_true_masks_raise_no_alarm(real_pairs, look, name):
    assert suspected(find_misfits(look(real_pairs(name)))) == {}


@pytest.mark.parametrize("name", ["brain", "dsb2018", "carvana"])
def test_masks_upside_down_are_found(real_pairs, look, tmp_path, name):
    pairs = real_pairs(name)
    for number in (2, 9, 16):
        pairs[number] = with_mask(pairs[number], read_mask(pairs[number].mask)[::-1], tmp_path)
    found = suspected(find_misfits(look(pairs)))
    assert found == {pairs[number].name: "mirrored" for number in (2, 9, 16)}


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (np.transpose, "mirrored at the diagonal"),
        (lambda mask: np.rot90(mask, -1), "turned a quarter to the left"),
        (np.rot90, "turned a quarter to the right"),
    ],
)
@pytest.mark.parametrize("name", ["dsb2018", "isbi2012"])
def test_turned_masks_of_square_images_are_found_and_named(real_data, look, tmp_path, name, turn, words):
    pairs, _ = pair_files(real_data(name) / "images", real_data(name) / "masks")
    pairs = [pair for pair in pairs if len(set(read_mask(pair.mask).shape)) == 1][:24]
    for number in (2, 9, 16):
        pairs[number] = with_mask(pairs[number], turn(read_mask(pairs[number].mask)), tmp_path)
    (suspicion,) = find_misfits(look(pairs))
    assert words in suspicion.text
    assert {pair.name for pair in suspicion.pairs} == {pairs[number].name for number in (2, 9, 16)}


@pytest.mark.parametrize("name", ["brain", "dsb2018", "carvana"])
def test_masks_in_another_place_are_found(real_pairs, look, tmp_path, name):
    pairs = real_pairs(name)
    for number in (3, 10):
        mask = read_mask(pairs[number].mask)
        by = mask.shape[0] // 12
        pairs[number] = with_mask(pairs[number], np.roll(mask, (by, by), (0, 1)), tmp_path)
    found = suspected(find_misfits(look(pairs)))
    assert set(found) == {pairs[number].name for number in (3, 10)}
    assert set(found.values()) <= {"moved", "foreign"}


@pytest.mark.parametrize("name", ["dsb2018", "carvana"])
def test_exchanged_masks_are_found_and_named(real_pairs, look, name):
    pairs = real_pairs(name)
    same_size = [n for n, pair in enumerate(pairs) if read_mask(pair.mask).shape == read_mask(pairs[4].mask).shape]
    first, second = 4, same_size[-1]
    one, other = pairs[first], pairs[second]
    pairs[first], pairs[second] = replace(one, mask=other.mask), replace(other, mask=one.mask)
    suspicions = find_misfits(look(pairs))
    assert set(suspected(suspicions)) == {one.name, other.name}
    foreign = [suspicion.text for suspicion in suspicions if suspicion.kind == "foreign"]
    assert not foreign or len(foreign[0].split("fits")) >= 2


def test_masks_that_are_all_upside_down_are_one_fault(real_pairs, look, tmp_path, brain):
    pairs = [with_mask(pair, read_mask(pair.mask)[::-1], tmp_path) for pair in brain]
    (suspicion,) = find_misfits(look(pairs))
    assert suspicion.kind == "mirrored"
    assert f"{len(suspicion.pairs)} of 24" in suspicion.text
    assert "how the masks were made" in suspicion.text
    assert len(suspicion.pairs) > 12


def test_the_place_where_a_mask_belongs():
    picture = np.zeros((96, 128, 3), np.float32)
    picture[40:70, 50:90] = 200
    labels = np.zeros((96, 128), int)
    labels[30:60, 30:70] = 1  # 10 higher and 20 to the left of where it belongs
    fit = measure_fit(edge_ranks(picture), mask_edges(labels))
    assert fit.best > fit.here + 0.05
    assert fit.move == pytest.approx((10 / 96, 20 / 128))


@pytest.mark.parametrize(("width", "ways"), [(128, 3), (96, 6)])
def test_only_masks_of_square_images_are_turned_a_quarter(width, ways):
    labels = np.zeros((96, width), int)
    labels[10:30, 10:80] = 1
    picture = np.repeat(200.0 * labels.T[:, :, None], 3, axis=2) if ways == 6 else np.zeros((96, width, 3))
    fit = measure_fit(edge_ranks(picture.astype(np.float32)), mask_edges(labels))
    assert len(fit.turned) == ways
    assert ways == 3 or list(TURNS)[int(np.argmax(fit.turned))].startswith("mirrored at the diagonal")


def test_contrast_does_not_matter(brain, look):
    from unet_edge_runtime.image import read_image

    image = read_image(brain[10].image).astype(np.float32)[:, :, None].repeat(3, axis=2)
    faint = image * 0.05 + 100
    np.testing.assert_allclose(edge_ranks(image), edge_ranks(faint), atol=0.02)


def test_a_mask_without_an_outline_has_no_fit():
    picture = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)
    assert measure_fit(edge_ranks(picture), mask_edges(np.zeros((32, 32), int))) is None
