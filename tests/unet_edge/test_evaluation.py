"""Scores of pairs: flips, shares of several processes, batches, and what is told of each image."""

from __future__ import annotations

import csv
import functools
import operator

import numpy as np
import pytest
from PIL import Image

from tests.drawn import VALUES, draw_pair, write_pairs
from unet_edge.data.pairing import pair_files
from unet_edge.evaluation import evaluate, segment_pairs
from unet_edge.image_scores import ImageScores
from unet_edge.torch_backend import TorchBackend
from unet_edge_runtime.backend import Backend
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.scores import ConfusionMatrix
from unet_edge_runtime.segmenter import Segmenter


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Nine pairs of three sizes, one after the other."""
    images, masks = write_pairs(tmp_path_factory.mktemp("pairs"), count=3, size=(48, 64))
    for number, size in enumerate([(40, 56), (47, 61)] * 3, start=3):
        image, mask = draw_pair(number, size)
        Image.fromarray(image).save(images / f"photo {number:02}.png")
        Image.fromarray(mask).save(masks / f"photo {number:02}_mask.png")
    return images, masks


@pytest.fixture(scope="module")
def pairs(folders):
    return pair_files(*folders)[0]


@pytest.fixture(scope="module")
def segmenter(make_model, make_spec):
    spec = make_spec(VALUES, scale=0.75)
    return Segmenter(TorchBackend.from_model(make_model(classes=3), spec))


def by_name(segmenter, pairs, **options):
    found = {}
    total = evaluate(segmenter, pairs, on_image=lambda pair, m: found.update({pair.name: m.counts.tolist()}), **options)
    assert total.counts.tolist() == np.sum(list(found.values()), axis=0).tolist()
    return found


def test_every_image_is_told_with_its_own_matrix(segmenter, pairs):
    found = by_name(segmenter, pairs)
    assert list(found) == [pair.name for pair in pairs]
    for pair, (truth, predicted) in zip(pairs, segment_pairs(segmenter, pairs), strict=True):
        assert found[pair.name] == ConfusionMatrix(3).add(truth, predicted).counts.tolist()


@pytest.mark.parametrize("flips", ["none", "both"])
@pytest.mark.parametrize("batch", [2, 4, 100])
def test_batches_give_the_same_labels(segmenter, pairs, batch, flips, monkeypatch):
    lengths, run = [], TorchBackend._run
    monkeypatch.setattr(TorchBackend, "_run", lambda self, x: lengths.append(len(x)) or run(self, x))
    assert by_name(segmenter, pairs, flips=flips, batch=batch) == by_name(segmenter, pairs, flips=flips)
    assert max(lengths) == min(batch, 3)


@pytest.mark.parametrize("world", [2, 4, 11])
def test_the_shares_of_several_processes_add_up(segmenter, pairs, world):
    shares = [by_name(segmenter, iter(pairs), shard=(rank, world)) for rank in range(min(world, 9))]
    assert {name: counts for share in shares for name, counts in share.items()} == by_name(segmenter, pairs)
    assert sum(map(len, shares)) == len(pairs)


def test_a_share_without_an_image_counts_nothing(segmenter, pairs):
    assert evaluate(segmenter, pairs, shard=(9, 11)).counts.sum() == 0


class Leaning(Backend):
    """Class 1 wins where a pixel lies in the left half: what a mirror image contradicts."""

    name = "leaning"

    def __init__(self, spec, path):
        self.spec, self.path = spec, path

    def _run(self, batch):
        planes = np.zeros((len(batch), 2, *batch.shape[2:]), np.float32)
        half = batch.shape[3] // 2
        planes[:, 1, :, :half], planes[:, 1, :, half:] = 3, -1  # sure on the left, hardly against it on the right
        planes[:, 1, : batch.shape[2] // 4] -= 2.5
        return planes


def test_flips_average_the_logits_over_the_mirrorings(make_spec, tmp_path):
    size = (16, 32)
    Image.new("RGB", size[::-1]).save(tmp_path / "a.png")
    Image.new("L", size[::-1], 255).save(tmp_path / "a_mask.png")
    pairs = pair_files(tmp_path, tmp_path)[0]
    segmenter = Segmenter(Leaning(make_spec(), tmp_path / "model"))
    found = {flips: evaluate(segmenter, pairs, flips=flips).counts[1, 1] for flips in ("none", "horizontal", "both")}
    # Left 3, right -1, mean 1: all but the top quarter, where 2.5 are missing. Upside down the mean loss is 1.25 on
    # each border quarter (1 - 1.25 < 0), none in the middle.
    assert found == {"none": 16 * 16, "horizontal": 12 * 32, "both": 8 * 32}


def test_mirror_symmetric_flips_of_a_real_network_undo_themselves(segmenter, tmp_path):
    image, mask = draw_pair(5, (48, 64))
    for name, axis in (("a", None), ("b", 1)):
        Image.fromarray(image if axis is None else np.flip(image, axis)).save(tmp_path / f"{name}.png")
        Image.fromarray(mask if axis is None else np.flip(mask, axis)).save(tmp_path / f"{name}_mask.png")
    found = by_name(segmenter, pair_files(tmp_path, tmp_path)[0], flips="horizontal")
    assert np.abs(np.subtract(found["a"], found["b"])).sum() <= 4  # pixels on the fence
    alone = by_name(segmenter, pair_files(tmp_path, tmp_path)[0])
    assert np.abs(np.subtract(alone["a"], alone["b"])).sum() > 4


def test_flips_that_cannot_be(segmenter, pairs, make_spec, tmp_path):
    with pytest.raises(InputError, match="flips must be one of none, horizontal, both, not 'sideways'"):
        evaluate(segmenter, pairs, flips="sideways")
    decided = Segmenter(Leaning(make_spec(head="classmap"), tmp_path / "model"))
    with pytest.raises(InputError, match="returns a class map"):
        evaluate(decided, pairs, flips="horizontal")


@pytest.fixture(scope="module")
def scores(segmenter, pairs):
    scores = ImageScores(segmenter.spec)
    evaluate(segmenter, pairs, on_image=scores.add)
    return scores


def test_pooled_scores_and_means_over_images_are_both_there(scores, segmenter, pairs):
    summary = scores.summary()
    total = evaluate(segmenter, pairs)
    assert summary["dice"] == total.mean(total.dice, 0)
    assert summary["pixel_error"] == pytest.approx(1 - total.pixel_accuracy)
    each = [m.mean(m.dice, 0) for m in scores.matrices.values()]
    assert summary["mean_over_images"] == {
        "dice": pytest.approx(np.mean(each)),
        "iou": pytest.approx(np.mean([m.mean(m.iou, 0) for m in scores.matrices.values()])),
        "scored": 9,
    }
    assert summary["dice"] != pytest.approx(np.mean(each), abs=1e-4)


def test_an_image_of_background_alone_has_no_score_and_counts_in_no_mean(make_spec, pairs):
    scores = ImageScores(make_spec())
    scores.add(pairs[0], ConfusionMatrix(2).add(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)))
    scores.add(pairs[1], ConfusionMatrix(2).add(np.array([[0, 1]], np.uint8), np.array([[1, 1]], np.uint8)))
    assert scores.summary()["mean_over_images"] == {"dice": 2 / 3, "iou": 0.5, "scored": 1}
    assert scores.worst(5) == [(pairs[1].name, 2 / 3)]
    assert ImageScores(make_spec()).summary()["mean_over_images"] == {"dice": None, "iou": None, "scored": 0}


def test_means_over_images_are_the_same_bits_in_any_order(make_spec, pairs):
    rng = np.random.default_rng(4)
    shares = [(pair, ConfusionMatrix(2).add(*rng.integers(0, 2, (2, 5, 7), np.uint8))) for pair in pairs]
    summaries = []
    for order in (shares, shares[1::2] + shares[::2], shares[::-1]):
        scores = ImageScores(make_spec(), include_background=True)
        for pair, matrix in order:
            scores.add(pair, matrix)
        summaries.append(scores.summary())
    assert summaries[0] == summaries[1] == summaries[2]
    each = [m.mean(m.dice) for _, m in shares]
    # A plain sum would not do; that of Python 3.12 and later compensates most of it.
    assert functools.reduce(operator.add, each) != functools.reduce(operator.add, each[::-1])


def test_the_worst_images_come_lowest_first(scores):
    worst = scores.worst(4)
    assert len(worst) == 4
    dice = {name: m.mean(m.dice, 0) for name, m in scores.matrices.items()}
    assert [value for _, value in worst] == sorted(dice.values())[:4]
    assert all(dice[name] == value for name, value in worst)


def test_csv_of_images_can_be_read_back(make_spec, pairs, tmp_path):
    spec = make_spec()
    odd = 'a "b",\nc'
    spec = spec.replace(classes=(spec.classes[0], type(spec.classes[1])(odd, 255, (1, 2, 3))))
    scores = ImageScores(spec)
    scores.add(pairs[1], ConfusionMatrix(2).add(np.array([[0, 1, 1]], np.uint8), np.array([[0, 0, 1]], np.uint8)))
    scores.add(pairs[0], ConfusionMatrix(2).add(np.zeros((1, 3), np.uint8), np.zeros((1, 3), np.uint8)))
    scores.write_images(tmp_path / "images.csv")
    raw = (tmp_path / "images.csv").read_bytes()
    assert raw.endswith(b"\r\n")
    assert b'"dice a ""b"",\nc"' in raw
    with (tmp_path / "images.csv").open(encoding="utf-8", newline="") as stream:
        first, second = list(csv.DictReader(stream))
    assert (first["image"], first["pixels"], first["dice"], first[f"iou {odd}"]) == (pairs[0].name, "3", "", "")
    assert float(first["pixel_accuracy"]) == 1
    assert float(second["dice"]) == float(second[f"dice {odd}"]) == 2 / 3
    assert (second[f"pixels {odd}"], second[f"predicted pixels {odd}"]) == ("2", "1")


def test_csv_of_classes_holds_the_pooled_scores(scores, tmp_path):
    scores.write_classes(tmp_path / "classes.csv")
    with (tmp_path / "classes.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == ["class 0", "class 1", "class 2"]
    assert [float(row["dice"]) for row in rows] == scores.total.dice
    assert [int(row["pixels"]) for row in rows] == scores.total.true_pixels
