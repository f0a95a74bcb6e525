import math

import pytest
import torch

from unet_edge.training.config import TrainConfig
from unet_edge.training.optimizers import make_optimizer
from unet_edge.training.schedule import Schedule

STEPS = 100


def course(**values):
    """The rate of each step."""
    model = torch.nn.Linear(1, 1)
    config = TrainConfig(learning_rate=2.0, **{"warmup": 0.0, "decay": "none", **values})
    optimizer = make_optimizer(model, config)
    schedule = Schedule(optimizer, config, STEPS)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[-1]["lr"])
        schedule.step()
    return rates


def test_without_warmup_and_decay_it_stays():
    assert set(course()) == {2.0}


def test_warmup_rises_in_a_line_from_a_hundredth():
    rates = course(warmup=0.1)
    assert rates[0] == pytest.approx(0.02)
    assert rates[5] == pytest.approx(2 * (0.01 + 0.99 / 2))
    assert rates[10:] == [2.0] * 90


@pytest.mark.parametrize(
    ("decay", "half", "last"),
    [
        ("cosine", 2 * (0.01 + 0.99 * 0.5), 2 * (0.01 + 0.99 * (1 + math.cos(math.pi * 0.99)) / 2)),
        ("linear", 2 * (1 - 0.99 / 2), 2 * (1 - 0.99 * 0.99)),
        ("poly", 2 * 0.5**0.9, 2 * 0.01**0.9),
    ],
)
def test_decays(decay, half, last):
    rates = course(decay=decay)
    assert rates[0] == 2.0
    assert rates[50] == pytest.approx(half)
    assert rates[99] == pytest.approx(last)
    assert rates == sorted(rates, reverse=True)


def test_a_plateau_divides_by_ten_like_torchs():
    model = torch.nn.Linear(1, 1)
    config = TrainConfig(learning_rate=1.0, warmup=0.0, decay="none", patience=2)
    optimizer = make_optimizer(model, config)
    schedule = Schedule(optimizer, config, STEPS)
    twin = torch.optim.SGD(model.parameters(), lr=1.0)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(twin, "max", patience=2)
    for dice in [0.0, 0.5, 0.5, 0.50001, 0.4, 0.6, 0.1, 0.6, 0.6, 0.6, 0.7, 0, 0, 0, 0, 0, 0, 0]:
        schedule.validated(dice)
        torchs.step(dice)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(twin.param_groups[0]["lr"])
    assert schedule.rate == pytest.approx(1e-4)


def test_it_goes_on_where_it_was():
    config = TrainConfig(warmup=0.3, decay="cosine", patience=1)
    first, second = (Schedule(make_optimizer(torch.nn.Linear(1, 1), config), config, STEPS) for _ in range(2))
    for _ in range(17):
        first.step()
        first.validated(0.5)
    second.load_state_dict(first.state_dict())
    for _ in range(17):
        assert second.rate == first.rate == second.optimizer.param_groups[0]["lr"]
        for schedule in (first, second):
            schedule.step()
            schedule.validated(0.1)
