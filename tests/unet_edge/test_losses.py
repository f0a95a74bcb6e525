"""Losses against the papers' formulas, written out plainly in numpy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unet_edge.losses import TERMS, balanced_weights, check_loss, make_loss
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.spec import IGNORE_LABEL

EVERYTHING = "+".join(TERMS)
OUTPUTS = [1, 2, 4]


def a_batch(outputs=3, images=3, size=(7, 9), seed=0, ignored=True):
    """Logits in double precision and labels; some pixels ignored, the last class absent from the first image."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, outputs, *size, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, max(2, outputs), (images, *size), generator=generator)
    labels[0] = labels[0].clamp(max=max(2, outputs) - 2)
    if ignored:
        labels[:, 2:4, 3:] = IGNORE_LABEL
    return logits, labels


def the_classes(logits, labels):
    """Probabilities (K, P) and truth (K, P) at the pixels that count; of the foreground alone for one output."""
    if logits.shape[1] == 1:
        probabilities, labels_of_rows = 1 / (1 + np.exp(-logits)), [1]
    else:
        e = np.exp(logits)
        probabilities, labels_of_rows = e / e.sum(1, keepdims=True), range(logits.shape[1])
    flat = np.moveaxis(probabilities, 1, 0).reshape(len(labels_of_rows), -1)
    counts = labels.ravel() != IGNORE_LABEL
    truth = np.stack([labels.ravel() == label for label in labels_of_rows])
    return flat[:, counts], truth[:, counts]


def true_probability(logits, labels):
    """(P,) of the pixels that count, and their labels."""
    probabilities, truth = the_classes(logits, labels)
    kept = labels.ravel()[labels.ravel() != IGNORE_LABEL]
    if logits.shape[1] == 1:
        return np.where(truth[0], probabilities[0], 1 - probabilities[0]), kept
    return probabilities[kept, np.arange(len(kept))], kept


def tversky_index(probabilities, truth, alpha, beta):
    hits = (probabilities * truth).sum(1)
    return hits / (hits + alpha * (probabilities * ~truth).sum(1) + beta * ((1 - probabilities) * truth).sum(1))


def lovasz_extension(errors, truth):
    """Berman's algorithm 1: the error of each rank times the growth of the Jaccard loss there."""
    order = np.argsort(-errors)
    total, loss, before, hits, false = truth.sum(), 0.0, 0.0, 0, 0
    for index in order:
        hits, false = hits + truth[index], false + (not truth[index])
        jaccard = 1 - (total - hits) / (total + false)
        loss, before = loss + errors[index] * (jaccard - before), jaccard
    return loss


def lovasz(logits, labels):
    losses = []
    for image, truth_map in zip(logits, labels, strict=True):
        probabilities, truth = the_classes(image[None], truth_map[None])
        if len(image) == 1:
            counts = truth_map.ravel() != IGNORE_LABEL
            margins = 1 - image.ravel()[counts] * np.where(truth[0], 1, -1)
            losses.append(lovasz_extension(np.maximum(margins, 0), truth[0]))
        else:
            rows = [lovasz_extension(abs(t - p), t) for p, t in zip(probabilities, truth, strict=True) if t.any()]
            losses.append(np.mean(rows))
    return np.mean(losses)


def by_the_book(term, logits, labels, weights=None):
    logits, labels = logits.numpy(), labels.numpy()
    probabilities, truth = the_classes(logits, labels)
    p, kept = true_probability(logits, labels)
    each = np.ones(len(kept)) if weights is None else np.asarray(weights)[kept]
    present = truth.any(1)
    return {
        "ce": lambda: np.average(-np.log(p), weights=each),
        "focal": lambda: np.average(-((1 - p) ** 2) * np.log(p), weights=each),
        "dice": lambda: 1 - tversky_index(probabilities, truth, 0.5, 0.5)[present].mean(),
        "pooled_dice": lambda: 1 - 2 * (probabilities * truth).sum() / (probabilities.sum() + truth.sum()),
        "tversky": lambda: 1 - tversky_index(probabilities, truth, 0.3, 0.7)[present].mean(),
        "lovasz": lambda: lovasz(logits, labels),
    }[term]()


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("term", TERMS)
def test_every_term_is_its_papers_formula(term, outputs):
    logits, labels = a_batch(outputs)
    assert float(make_loss(term)(logits, labels)) == pytest.approx(by_the_book(term, logits, labels), rel=1e-6)


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("term", ["ce", "focal"])
def test_class_weights_weigh_pixels_by_their_true_class(term, outputs):
    logits, labels = a_batch(outputs)
    weights = [1.0, 0.25, 4.0, 0.0][: max(2, outputs)]
    expected = by_the_book(term, logits, labels, weights)
    assert float(make_loss(term, weights)(logits, labels)) == pytest.approx(expected, rel=1e-6)
    assert expected != pytest.approx(by_the_book(term, logits, labels), rel=1e-3)


def test_cross_entropy_with_weights_is_torchs_own():
    logits, labels = a_batch(4)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    expected = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE_LABEL)
    torch.testing.assert_close(make_loss("ce", weights.tolist())(logits, labels), expected)


def test_class_weights_leave_region_terms_alone():
    logits, labels = a_batch(3)
    weights = (1.0, 5.0, 0.2)
    for term in ("dice", "pooled_dice", "tversky", "lovasz"):
        both, ce = (make_loss(text, weights)(logits, labels) for text in (f"ce+{term}", "ce"))
        assert float(both - ce) == pytest.approx(float(make_loss(term)(logits, labels)), rel=1e-9)


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("term", TERMS)
def test_gradients_are_those_of_the_value(term, outputs):
    logits, labels = a_batch(outputs, images=2, size=(5, 4))
    labels[1, 2, 2] = IGNORE_LABEL
    assert torch.autograd.gradcheck(lambda x: make_loss(term)(x, labels), logits.requires_grad_())


def test_terms_are_added_with_their_weights():
    logits, labels = a_batch()
    ce, lovasz_loss, dice = (float(make_loss(name)(logits, labels)) for name in ("ce", "lovasz", "dice"))
    joined = float(make_loss(" 0.5*lovasz + ce+2e-1*dice ")(logits, labels))
    assert joined == pytest.approx(0.5 * lovasz_loss + ce + 0.2 * dice)


@pytest.mark.parametrize("text", ["", "ce+", "cross", "ce+ce", "0*ce", "-1*ce", "1..2*ce", "1e999*ce", "2ce", "ce*2"])
def test_what_is_no_loss_is_refused(text):
    with pytest.raises(InputError, match="loss '"):
        check_loss(text)


def test_checking_a_loss_does_not_import_torch():
    code = (
        "import sys; from unet_edge.losses import check_loss; check_loss('ce+dice'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_class_weights_that_cannot_be_used_are_refused():
    with pytest.raises(InputError, match="only ce and focal"):
        make_loss("dice+lovasz", (1, 2))
    for weights in ((-1, 1), (0, 0), (float("nan"), 1), (float("inf"), 1)):
        with pytest.raises(InputError, match="class weights must be"):
            make_loss("ce", weights)
    with pytest.raises(InputError, match="3 class weights do not fit 2 classes"):
        make_loss("ce", (1, 2, 3))(*a_batch(1))


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("term", TERMS)
def test_ignored_pixels_change_neither_loss_nor_gradient(term, outputs):
    logits, labels = a_batch(outputs, ignored=False)
    logits, labels = logits.float().requires_grad_(), labels.to(torch.uint8)
    labels[:, :, 5:] = IGNORE_LABEL
    loss = make_loss(term)(logits, labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    cropped = make_loss(term)(logits[..., :5], labels[..., :5])
    (expected,) = torch.autograd.grad(cropped, logits)
    torch.testing.assert_close(loss, cropped)
    torch.testing.assert_close(gradient, expected)
    assert gradient[..., 5:].abs().max() == 0
    assert gradient[..., :5].abs().max() > 0


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("images", [0, 1, 2])
def test_nothing_to_learn_from_is_a_loss_of_zero(images, outputs):
    logits = torch.randn(images, outputs, 4, 4, requires_grad=True)
    loss = make_loss(EVERYTHING, [1.0] * max(2, outputs))(logits, torch.full((images, 4, 4), IGNORE_LABEL))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_logits_of_any_size_have_a_finite_loss_in_fp32(dtype, outputs):
    _, labels = a_batch(outputs, size=(16, 16))
    extremes = torch.tensor([-60000.0, -50.0, 0.0, 50.0, 60000.0])
    picked = torch.randint(0, 5, (3, outputs, 16, 16), generator=torch.Generator().manual_seed(1))
    for term in TERMS:
        logits = extremes[picked].to(dtype).requires_grad_()
        loss = make_loss(term)(logits, labels)
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss), term
        loss.backward()
        assert torch.isfinite(logits.grad).all(), term


def test_a_class_absent_from_the_batch_neither_rewards_nor_punishes():
    logits, labels = a_batch(3, ignored=False)
    labels = labels.clamp(max=1)
    probabilities, truth = the_classes(logits.numpy(), labels.numpy())
    expected = 1 - tversky_index(probabilities[:2], truth[:2], 0.5, 0.5).mean()
    assert float(make_loss("dice")(logits, labels)) == pytest.approx(expected, rel=1e-6)


def test_a_missed_rare_class_costs_a_share_of_the_classes_unless_pooled():
    labels = torch.zeros(1, 10, 10, dtype=torch.long)
    labels[0, 0, 0] = 1
    all_background = torch.tensor([20.0, -20.0])[None, :, None, None].expand(1, 2, 10, 10)
    assert float(make_loss("dice")(all_background, labels)) == pytest.approx(0.5, abs=0.01)
    assert float(make_loss("pooled_dice")(all_background, labels)) == pytest.approx(0.01, abs=1e-4)


def test_tversky_punishes_missed_pixels_more_than_false_ones():
    labels = torch.zeros(1, 1, 8, dtype=torch.long)
    labels[..., :4] = 1
    missing, false = torch.full((1, 1, 1, 8), -20.0), torch.full((1, 1, 1, 8), -20.0)
    missing[..., :2] = 20  # two of four found
    false[..., :6] = 20  # all four, and two that are none
    assert make_loss("tversky")(missing, labels) > make_loss("tversky")(false, labels) + 0.2


def test_lovasz_of_a_decided_mask_is_one_minus_its_iou():
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, :2] = 1
    decided = torch.full((1, 2, 4, 4), -40.0)
    decided[0, 0], decided[0, 1, 1:3] = 0, 40.0  # says rows 1 and 2, true are rows 0 and 1
    assert float(make_loss("lovasz")(decided, labels)) == pytest.approx(1 - 1 / 3)


def test_lovasz_stays_exact_over_a_million_pixels():
    # As the difference of two values near 1, the steps of so many pixels would keep two digits in fp32.
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 1024, 1024, generator=generator)
    labels = torch.randint(0, 2, (1, 1024, 1024), generator=generator)
    gradients = []
    for x in (logits.requires_grad_(), logits.detach().double().requires_grad_()):
        make_loss("lovasz")(x, labels).backward()
        gradients.append(x.grad.double())
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("term", [*TERMS, "ce+0.3*tversky+lovasz"])
def test_two_processes_have_the_loss_and_gradient_of_the_joined_batch(term, outputs):
    logits, labels = a_batch(outputs, images=4)
    labels[3] = IGNORE_LABEL  # the halves count unequally many pixels and images
    logits.requires_grad_()
    weights = None if term in ("dice", "pooled_dice", "tversky", "lovasz") else [1.0, 3.0, 0.5, 2.0][: max(2, outputs)]
    joined = make_loss(term, weights)(logits, labels)
    (expected,) = torch.autograd.grad(joined, logits)

    parts: list[torch.Tensor] = []
    for half in (slice(0, 2), slice(2, 4)):
        make_loss(term, weights, lambda sums: parts.append(sums.detach()) or sums)(logits[half], labels[half])
    assert len(parts) == 2, "one exchange a process"
    for half, others in ((slice(0, 2), parts[1]), (slice(2, 4), parts[0])):
        x = logits[half].detach().requires_grad_()
        loss = make_loss(term, weights, lambda sums, others=others: sums + others)(x, labels[half])
        loss.backward()
        torch.testing.assert_close(loss, joined)
        torch.testing.assert_close(x.grad, expected[half])


def test_balanced_weights_are_the_medians_share_within_bounds():
    assert balanced_weights([100, 400, 50]) == (1.0, 0.25, 2.0)
    assert balanced_weights([1, 1000, 10**6]) == (10.0, 1.0, 0.1)
    assert balanced_weights([0, 30, 10, 20]) == (1.0, 20 / 30, 2.0, 1.0)
    assert balanced_weights([0, 0]) == (1.0, 1.0)
