import itertools

import pytest

from unet_edge.data.batches import EpochBatches


def epoch_of(length, batch_size, rank=0, world=1, epoch=1, start=0, seed=7):
    batches = EpochBatches(length, batch_size, seed, rank, world)
    batches.epoch, batches.start = epoch, start
    return list(batches)


def test_every_epoch_has_every_item_once_in_another_order():
    first, second = ([index for batch in epoch_of(12, 5, epoch=epoch) for index, _, _ in batch] for epoch in (1, 2))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert [len(batch) for batch in epoch_of(12, 5)] == [5, 5, 2]


def test_another_seed_gives_another_order():
    assert epoch_of(12, 5, seed=1) != epoch_of(12, 5, seed=2)


@pytest.mark.parametrize("length", [1, 3, 7, 8, 9, 24, 25, 31])
@pytest.mark.parametrize(("batch_size", "world"), [(1, 2), (2, 2), (3, 4), (4, 3), (8, 5)])
def test_processes_together_have_the_batches_of_one_process(length, batch_size, world):
    alone = epoch_of(length, batch_size * world)
    shares = [epoch_of(length, batch_size, rank, world) for rank in range(world)]
    assert {len(share) for share in shares} == {len(alone)}
    assert len(EpochBatches(length, batch_size, 7, 0, world)) == len(alone)
    for number, batch in enumerate(alone):
        together = [key for share in shares for key in share[number] if key[2]]
        assert together == batch
        assert all(1 <= len(share[number]) <= batch_size for share in shares)
        counts = [sum(key[2] for key in share[number]) for share in shares]
        assert max(counts) - min(counts) <= 1
        for share in shares:
            counting = [key[2] for key in share[number]]
            assert all(counting) or counting == [False]  # a rank without an image has one that does not count


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_an_epoch_entered_in_the_middle_continues_as_the_whole_one(start):
    for rank, world in itertools.chain([(0, 1)], [(rank, 3) for rank in range(3)]):
        whole = epoch_of(23, 2, rank, world)
        assert epoch_of(23, 2, rank, world, start=start) == whole[start:]
