import pytest
import torch
from torch.nn import functional as F

from unet_edge.losses import dice_loss, segmentation_loss
from unet_edge_runtime.spec import IGNORE_LABEL


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    return F.one_hot(labels, classes).movedim(3, 1).float()


def test_a_missed_rare_class_costs_a_share_of_the_classes_not_of_the_pixels():
    truth = torch.zeros(1, 10, 10, dtype=torch.long)
    truth[0, 0, 0] = 1
    predicted = one_hot(torch.zeros_like(truth), 2)
    assert dice_loss(predicted, one_hot(truth, 2)) > 0.5
    assert dice_loss(predicted, one_hot(truth, 2), pooled=True) == pytest.approx(0.01, abs=1e-4)


def test_a_class_absent_from_the_batch_neither_rewards_nor_punishes():
    truth = torch.randint(0, 2, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    probabilities = logits.softmax(1)
    both = dice_loss(probabilities[:, :2], one_hot(truth, 2))
    assert dice_loss(probabilities, one_hot(truth, 3)) == pytest.approx(float(both))


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_ignored_pixels_change_neither_loss_nor_gradient(classes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 8, 8, generator=generator, requires_grad=True)
    labels = torch.randint(0, max(2, classes), (2, 8, 8), generator=generator)
    labels[:, :, 5:] = IGNORE_LABEL
    loss = segmentation_loss(logits, labels)
    loss.backward()
    assert logits.grad[:, :, :, 5:].abs().max() == 0
    assert logits.grad[:, :, :, :5].abs().min() > 0
    cropped = segmentation_loss(logits[..., :5], labels[..., :5])
    assert float(loss) == pytest.approx(float(cropped), rel=1e-5)


def test_nothing_but_ignored_pixels_is_a_loss_of_zero():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 4, 4), IGNORE_LABEL))
    loss.backward()
    assert float(loss) == 0
    assert torch.isfinite(logits.grad).all()


def test_cross_entropy_part_is_torchs_own():
    logits = torch.randn(2, 3, 4, 4)
    labels = torch.randint(0, 3, (2, 4, 4))
    dice = dice_loss(logits.softmax(1), one_hot(labels, 3))
    assert float(segmentation_loss(logits, labels) - dice) == pytest.approx(
        float(F.cross_entropy(logits, labels)), rel=1e-5
    )


def test_half_precision_logits_are_scored_in_full_precision():
    logits = torch.randn(1, 2, 64, 64).to(torch.float16) * 100
    loss = segmentation_loss(logits, torch.ones(1, 64, 64, dtype=torch.uint8))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
