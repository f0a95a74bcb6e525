"""What the tests let several real processes do: `python distributed_worker.py TASK FOLDER` in torchrun's environment.

A task returns arrays, which go to FOLDER/TASK-RANK.npz; the test compares them with what one process computes.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import nn

from unet_edge.losses import make_loss
from unet_edge.model import UNet, UNetConfig
from unet_edge.training import distributed, trainer
from unet_edge.training.config import TrainConfig
from unet_edge.training.distributed import World, current
from unet_edge.training.start import DataConfig, NetworkConfig, train
from unet_edge_runtime.errors import DatasetError

CPU = torch.device("cpu")
BATCHES = (2, 1)  # images of rank 0 and rank 1: uneven, as at the end of an epoch


def joined_batch():
    """(3, 3, 16, 16) float64 images and their labels, 255 of which do not count."""
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(sum(BATCHES), 3, 16, 16, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (sum(BATCHES), 16, 16), generator=generator)
    labels[0, :9] = 255
    return images, labels


def own_part(world: World, *tensors):
    if world.size == 1:
        return tensors
    return tuple(tensor.split(BATCHES)[world.rank] for tensor in tensors)


def network(checkpointing: str = "none") -> UNet:
    torch.manual_seed(1)
    return UNet(UNetConfig(in_channels=3, classes=3, base_channels=4, depth=2), checkpointing).double()


def ratio_loss(logits, labels, reduce):
    """Like Dice no mean over images: a ratio of sums, so the sums must be those of all processes."""
    valid = labels != 255
    hit = (torch.softmax(logits, 1)[:, 1] * (labels == 1) * valid).sum()
    total = (torch.softmax(logits, 1)[:, 1].square() * valid).sum() + (labels == 1).sum()
    hit, total = reduce(torch.stack([hit, total]))
    return 1 - 2 * hit / total + (hit / 100) ** 3


def step(world: World, sync_norm: bool, checkpointing: str, loss_of):
    """Gradients and state after one training step; frozen norms unless they are synchronised."""
    model = network(checkpointing).train()
    if not sync_norm:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    wrapped = world.wrap(model, sync_norm)
    images, labels = own_part(world, *joined_batch())
    logits = wrapped(images)
    loss = loss_of(logits, labels, world.reduce_sum)
    loss.backward()
    found = {f"gradient {name}": p.grad for name, p in model.named_parameters()}
    found |= {f"state {name}": value for name, value in model.state_dict().items()}
    model.eval()
    found |= {"loss": loss.detach(), "logits": logits.detach(), "eval": model(joined_batch()[0]).detach()}
    return {name: value.numpy() for name, value in found.items()}


def real_loss(logits, labels, reduce):
    return make_loss("ce+dice+0.5*focal+tversky+lovasz", reduce=reduce)(logits, labels)


def frozen(world: World):
    return step(world, False, "none", ratio_loss)


def frozen_real_loss(world: World):
    return step(world, False, "none", real_loss)


def sync_norm(world: World):
    return step(world, True, "none", ratio_loss)


def sync_norm_checkpointed(world: World):
    return step(world, True, "all", ratio_loss)


def collectives(world: World):
    big = np.array([2**60 + world.rank, -7], np.int64)
    module = nn.BatchNorm2d(2)
    module.running_mean.fill_(world.rank + 1)
    world.share(module)
    try:
        world.from_writer(lambda: (_ for _ in ()).throw(DatasetError([f"from {world.rank}"])))
        message = "no error"
    except DatasetError as error:
        message = str(error)
    return {
        "sum": world.all_sum(big),
        "argument": big,
        "any": np.array([world.any(world.rank == world.size - 1), world.any(False)]),
        "gathered": np.array(str(world.gather(f"by {world.rank}"))),
        "made": np.array(str(world.from_writer(lambda: {"made by": world.rank, "path": Path("x")}))),
        "message": np.array(message),
        "shared": module.running_mean.numpy(),
    }


def scores(world: World):
    from unet_edge.checkpoint import read_checkpoint
    from unet_edge.data.pairing import pair_files
    from unet_edge.evaluation import evaluate
    from unet_edge.torch_backend import TorchBackend
    from unet_edge_runtime.segmenter import Segmenter

    pairs, _ = pair_files(Path(os.environ["IMAGES"]), Path(os.environ["MASKS"]))
    checkpoint = read_checkpoint(Path(os.environ["CHECKPOINT"]))
    segmenter = Segmenter(TorchBackend.from_model(checkpoint.build(), checkpoint.spec, CPU))
    found = {}
    for count in (len(pairs), 2):
        seen = {}
        matrix = evaluate(segmenter, pairs[:count], shard=(world.rank, world.size), on_image=seen.__setitem__)
        found[f"matrix {count}"] = world.all_sum(matrix.counts)
        found[f"seen {count}"] = np.array([pair.name for pair in seen], dtype=str)
    return found


def lost(world: World):
    if world.rank == 1:
        os._exit(3)
    return {"sum": world.all_sum(np.ones(1, np.int64))}


def run(folder: Path, percent: float, **changes):
    """A training run of the whole trainer, with a step of four images however many processes there are.

    SGD, since the first steps of RMSprop and AdamW take little more than the sign of a gradient, and turn rounding
    into steps of full size.
    """
    world = current()
    data = DataConfig(Path(os.environ["IMAGES"]), Path(os.environ["MASKS"]), validation=percent)
    config = TrainConfig(
        epochs=4, batch_size=4 // world.size, optimizer="sgd", learning_rate=0.02, flip="both", seed=3, **changes
    )
    network = NetworkConfig(scale=1.0, load=Path(os.environ["CHECKPOINT"]))
    train(data, folder, network, config, "cpu")
    return {}


def run_frozen(folder: Path):
    """Norms on the loaded running statistics; nine images, so the last step has one for two processes."""
    trainer.NORM_BATCHES = 0
    return run(folder, 25, freeze_norm=0.0, ema=0.9)


def run_synchronised(folder: Path):
    """Norms on each batch's statistics; eight images, so that no filler has a part in them."""
    return run(folder, 33.4, freeze_norm=1.0, sync_norm=True)


def run_in_parts(folder: Path):
    """Two parts a step; eleven images, so in the last step one process has two images and the other one.

    Cross-entropy alone, since other terms depend on which images form a part.
    """
    trainer.NORM_BATCHES = 0
    return run(folder, 10, freeze_norm=0.0, accumulate=2, checkpointing="auto", loss="ce")


def run_synchronised_in_parts(folder: Path):
    """Eleven images: of the last batch one process has two, the other one, while norms are trained and estimated."""
    distributed.PATIENCE = timedelta(seconds=30)  # a process that waits for the other's part would wait for ever
    return run(folder, 10, freeze_norm=1.0, sync_norm=True, accumulate=4 // current().size)


def main(task: str, folder: Path) -> None:
    try:
        if task.startswith("run_"):
            world, found = current(), globals()[task](folder / f"{task}-{current().size}")
        else:
            with current().join(CPU, timedelta(seconds=60)) as world:
                found = globals()[task](world)
    except Exception as error:
        (folder / f"{task}-{os.environ['RANK']}.txt").write_text(f"{type(error).__name__}: {error}")
        raise
    np.savez(folder / f"{task}-{world.rank}.npz", **found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1].split(","):
        main(name, Path(sys.argv[2]))
