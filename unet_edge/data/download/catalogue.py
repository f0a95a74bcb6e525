"""The data sets that can be downloaded: where they are, under which terms, and how they are laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .carvana import convert_carvana
from .dsb2018 import convert_dsb2018
from .oxford_pet import convert_oxford_pet

__all__ = ["CATALOGUE", "Archive", "PublicSet"]

MIB = 1 << 20

Converter = Callable[[list[Path], Path], Iterator[str]]
"""(archives, folder) -> names of pairs, each as soon as it is written; fills images/, masks/ and val.txt."""


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        file: its name.
        address: of the folder that it is in.
        limit: bytes that it has at most.
        digest: "md5:..." that its users agree on; None where nobody publishes one.
    """

    file: str
    address: str
    limit: int
    digest: str | None = None


@dataclass(frozen=True)
class PublicSet:
    """A data set.

    Attributes:
        name: on the command line.
        title: one line.
        licence: the terms, as its publisher states them.
        source: page of the publisher.
        citation: what to cite.
        layout: what is in images/ and masks/.
        split: what `val.txt` is.
        archives: in the order in which `convert` takes them.
        convert: lays them out.
        pairs: how many there are, as the publisher says.
        room: bytes that archives and pictures take together.
        ignore: mask value that does not count.
        account: the archives need a Kaggle account.
    """

    name: str
    title: str
    licence: str
    source: str
    citation: str
    layout: str
    split: str
    archives: tuple[Archive, ...]
    convert: Converter
    pairs: int
    room: int
    ignore: int | None = None
    account: bool = False


_PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
_BROAD = "https://data.broadinstitute.org/bbbc/BBBC038"
_KAGGLE = "https://www.kaggle.com/api/v1/competitions/data/download/carvana-image-masking-challenge"

CATALOGUE = {
    entry.name: entry
    for entry in (
        PublicSet(
            name="oxford-pet",
            title="Oxford-IIIT Pet: photos of cats and dogs, the animal outlined (800 MB)",
            licence="CC BY-SA 4.0; the copyright of the photos remains with their owners",
            source="https://www.robots.ox.ac.uk/~vgg/data/pets/",
            citation="Parkhi, Vedaldi, Zisserman, Jawahar: Cats and Dogs, CVPR 2012",
            layout="RGB photos; masks 0 background, 1 pet, 255 boundary (trimaps: 2, 1, 3): train with --ignore 255",
            split="the publisher's test list",
            archives=(
                Archive("images.tar.gz", _PETS, 1000 * MIB, "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c"),
                Archive("annotations.tar.gz", _PETS, 100 * MIB, "md5:95a8c909bbe2e81eed6a22bccdf3f68f"),
            ),
            convert=convert_oxford_pet,
            pairs=7390,
            room=2000 * MIB,
            ignore=255,
        ),
        PublicSet(
            name="dsb2018",
            title="Data Science Bowl 2018, stage 1 (BBBC038v1): microscopy images, nuclei outlined (80 MB)",
            licence="CC0 1.0 (public domain)",
            source="https://bbbc.broadinstitute.org/BBBC038",
            citation="Caicedo et al.: Nucleus segmentation across imaging experiments, Nature Methods 16, 2019",
            layout="RGBA or RGB microscopy images; masks 0 background, 255 nuclei (one file an object, put together)",
            split="every fifth image in the order of names",
            archives=(Archive("stage1_train.zip", _BROAD, 400 * MIB),),
            convert=convert_dsb2018,
            pairs=670,
            room=400 * MIB,
        ),
        PublicSet(
            name="carvana",
            title="Carvana Image Masking Challenge: 318 cars from 16 sides (400 MB; Kaggle account)",
            licence="none stated: the rules of the Kaggle competition apply, which you accept on its page",
            source="https://www.kaggle.com/competitions/carvana-image-masking-challenge",
            citation="Shaler et al.: Carvana Image Masking Challenge, Kaggle 2017",
            layout="RGB photos 1918x1280; masks 0 background, 1 car",
            split="every fifth car; the 16 views of one car are never on both sides",
            archives=(
                Archive("train.zip", _KAGGLE, 1000 * MIB),
                Archive("train_masks.zip", _KAGGLE, 200 * MIB),
            ),
            convert=convert_carvana,
            pairs=5088,
            room=1500 * MIB,
            account=True,
        ),
    )
}
