"""What is prepared, and that it is kept safely."""

import multiprocessing
import os
import pickle
import random
import shutil
import time
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from unet_edge.checkpoint import class_infos
from unet_edge.data.disk_store import DiskStore, clear, prepared_folder
from unet_edge.data.memory_store import MemoryStore
from unet_edge.data.pairing import Pair, pair_files
from unet_edge.data.prepared import CACHES, Preparation, open_store
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.image import read_image
from unet_edge_runtime.mask import labels_from_mask, read_mask
from unet_edge_runtime.spec import IGNORE_LABEL, ModelSpec
from unet_edge_runtime.transform import bring_to_scale

SPEC = ModelSpec(channels=3, classes=class_infos([0, 100, 255]), outputs=3, multiple=16)
SCALES = [0.1, 0.25, 0.37, 0.5, 0.83, 1.0, 1.3]
FORK = multiprocessing.get_context("fork")


def scaled_after_mapping(pair, spec):
    """The labels by the slow road: every pixel of the file becomes a label, then the nearest one is taken."""
    labels = labels_from_mask(read_mask(pair.mask), spec, pair.mask)
    sizes = zip(labels.shape, bring_to_scale(read_image(pair.image), spec).shape[:2], strict=True)
    rows, columns = ([nearest(place, old, new) for place in range(new)] for old, new in sizes)
    return labels[np.ix_(rows, columns)]


def nearest(place, old, new):
    centre = Fraction(2 * place + 1, 2) * old / new
    between_two = centre == int(centre)
    return int(centre) - (between_two and place % 2)


def grey(rng, size):
    return Image.fromarray(rng.choice([0, 7, 200, 9], size).astype(np.uint8)), [0, 7, 200], 9


def palette(rng, size):
    picture = Image.fromarray(rng.integers(0, 4, size).astype(np.uint8))
    picture.putpalette([250, 0, 0, 9, 9, 9, 0, 0, 0, 30, 40, 50])
    return picture, [0, 1, 2], 3


def colour(rng, size):
    colours = np.array([(0, 0, 5), (5, 0, 0), (255, 255, 255)], np.uint8)
    return Image.fromarray(colours[rng.integers(0, 3, size)]), [tuple(map(int, c)) for c in colours], None


def sixteen_bits(rng, size):
    return Image.fromarray(rng.choice([0, 300, 65535], size).astype(np.uint16)), [0, 300, 65535], None


@pytest.mark.parametrize("kind", [grey, palette, colour, sixteen_bits])
@pytest.mark.parametrize("turn", [1, 3, 6])
def test_labels_are_those_of_mapping_before_scaling(tmp_path, kind, turn):
    rng = np.random.default_rng(turn)
    height, width = 123, 211
    exif = Image.Exif()
    exif[0x0112] = turn  # EXIF orientation: as it is, upside down, on its side
    Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    mask, values, ignored = kind(rng, (width, height) if turn == 6 else (height, width))
    mask.save(tmp_path / "a_mask.png")
    pair = Pair("a", tmp_path / "a.jpg", tmp_path / "a_mask.png")
    for scale in SCALES:
        spec = SPEC.replace(classes=class_infos(values), outputs=3, scale=scale, ignore_value=ignored)
        made = Preparation([pair], spec).make(0)
        assert np.array_equal(made[:, :, -1], scaled_after_mapping(pair, spec))
        assert np.array_equal(made[:, :, :-1], bring_to_scale(read_image(pair.image), spec))
    assert (ignored is None) == (IGNORE_LABEL not in made[:, :, -1])


@pytest.mark.parametrize("scale", [0.125, 0.25, 0.5, 0.37, 1.0, 2.0])
def test_masks_stay_where_they_are_on_their_images(tmp_path, scale):
    """The centre of a disc, in pixels of the file: at half the size Pillow's NEAREST moves it by half a pixel."""
    rows, columns = np.mgrid[:400, :400] + 0.5
    disc = np.hypot(rows - 200, columns - 200) < 150
    Image.fromarray((disc * 255).astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray((disc * 255).astype(np.uint8)).save(tmp_path / "a_mask.png")
    spec = SPEC.replace(channels=1, classes=class_infos([0, 255]), outputs=2, scale=scale)
    made = Preparation([Pair("a", tmp_path / "a.png", tmp_path / "a_mask.png")], spec).make(0)
    for channel in (0, 1):
        weights = made[:, :, channel] / made[:, :, channel].sum()
        centre = [((np.arange(side) + 0.5) * weights.sum(1 - axis)).sum() for axis, side in enumerate(weights.shape)]
        assert np.array(centre) / scale == pytest.approx([200, 200], abs=0.1)


def test_a_mask_of_another_size_is_brought_to_the_images(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 61), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(rng.choice([0, 255], (97, 30)).astype(np.uint8)).save(tmp_path / "a_mask.png")
    pair = Pair("a", tmp_path / "a.png", tmp_path / "a_mask.png")
    spec = SPEC.replace(channels=1)
    made = Preparation([pair], spec).make(0)
    assert made.shape == (40, 61, 2)
    assert np.array_equal(made[:, :, 1], scaled_after_mapping(pair, spec))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_more_than_eight_bits_are_kept(tmp_path, save, dtype):
    image = (np.random.default_rng(0).random((20, 30)) * (1 if dtype == np.float32 else 65535)).astype(dtype)
    pair = Pair("a", save(tmp_path / "a.npy", image), save(tmp_path / "m.png", np.full((20, 30), 255, np.uint8)))
    made = Preparation([pair], SPEC.replace(channels=1)).make(0)
    assert made.dtype == dtype
    assert np.array_equal(made[:, :, 0], image)
    assert (made[:, :, 1] == 2).all()


@pytest.mark.parametrize(("mode", "turn"), [("RGB", 1), ("L", 6)])
def test_fast_decoding_changes_pixels_a_little_and_labels_not_at_all(tmp_path, real_data, mode, turn):
    folder = real_data("carvana")
    photo = sorted((folder / "images").iterdir())[0]
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.open(photo).convert(mode).save(tmp_path / "a.jpg", exif=exif, quality=92)
    mask = Image.open(folder / "masks" / f"{photo.stem}_mask.gif")
    (mask.rotate(-90, expand=True) if turn == 6 else mask).save(tmp_path / "m.png")
    pair = Pair("a", tmp_path / "a.jpg", tmp_path / "m.png")
    for scale in (0.25, 0.7, 1.0):
        spec = SPEC.replace(classes=class_infos([0, 1]), outputs=2, scale=scale, channels=len(mode))
        slow, fast = (Preparation([pair], spec, quick).make(0).astype(int) for quick in (False, True))
        assert slow.shape == fast.shape
        assert np.array_equal(slow[:, :, -1], fast[:, :, -1])
        assert np.abs(slow - fast)[:, :, :-1].mean() < 2.0  # of 255 grey levels
        assert (scale == 1.0) == np.array_equal(slow, fast)


def test_fast_decoding_of_other_files_is_within_a_grey_level(pairs_folder):
    pairs, _ = pair_files(*pairs_folder)
    spec = SPEC.replace(scale=0.5)
    slow, fast = (Preparation(pairs, spec, quick).make(0).astype(int) for quick in (False, True))
    assert np.abs(slow - fast).max() <= 1


def test_fast_decoding_says_as_clearly_what_is_wrong(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    pair = Pair("a", tmp_path / "a.jpg", tmp_path / "m.png")
    said = []
    for quick in (False, True):
        with pytest.raises(InputError, match=r"a\.jpg") as caught:
            Preparation([pair], SPEC, quick).make(0)
        said.append(str(caught.value))
    assert said[0] == said[1]


def array(number=0, shape=(5, 7, 4), dtype=np.uint8):
    return np.random.default_rng(number).integers(0, 200, shape).astype(dtype)


def stores(kind, room=1 << 20):
    return MemoryStore(50, room) if kind == "memory" else DiskStore(lambda index: f"{index:064x}", 4, room)


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_was_put_comes_back(kind, dtype):
    store = stores(kind)
    sizes = [(1, 1, 4), (5, 7, 4), (64, 3, 4)]
    for index, shape in enumerate(sizes):
        assert store.get(index) is None
        store.put(index, array(index, shape, dtype))
    for _ in range(2):
        for index, shape in enumerate(sizes):
            found = store.get(index)
            assert found.dtype == dtype
            assert np.array_equal(found, array(index, shape, dtype))
            with pytest.raises(ValueError, match="read-only"):
                found[0, 0, 0] = 1


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_full_store_keeps_what_it_has(kind):
    store = stores(kind, room=1000)
    for index in range(20):
        store.put(index, array(index))
    kept = [index for index in range(20) if store.get(index) is not None]
    assert 3 <= len(kept) <= 7
    assert kept == list(range(len(kept)))
    assert all(np.array_equal(store.get(index), array(index)) for index in kept)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_forked_processes_share_a_store(kind):
    store = stores(kind)

    def work(share):
        for index in range(50):
            if index % 3 == share:
                store.put(index, array(index))

    workers = [FORK.Process(target=work, args=(share,)) for share in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(store.get(index), array(index)) for index in range(50))


def test_processes_that_write_at_once_get_different_places_in_memory():
    store = MemoryStore(8000, 1 << 20)

    def work(share):
        for index in range(share, 8000, 4):
            store.put(index, np.full((1, 1, 4), index % 251, np.uint8))

    workers = [FORK.Process(target=work, args=(share,)) for share in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all((store.get(index) == index % 251).all() for index in range(8000))


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_many_processes_at_once_never_see_halves(kind):
    """All write the same items and read them back, in different orders."""
    shape = (200, 100, 4)
    expected = [array(index, shape) for index in range(12)]
    store = stores(kind, 1 << 22)

    def work(seed, wrong):
        order = random.Random(seed)
        for _ in range(100):
            index = order.randrange(12)
            found = (store if kind == "memory" or order.random() < 0.5 else stores(kind, 1 << 22)).get(index)
            if found is None:
                store.put(index, expected[index])
            elif not np.array_equal(found, expected[index]):
                wrong.value += 1

    wrong = FORK.Value("i", 0)
    workers = [FORK.Process(target=work, args=(seed, wrong)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert wrong.value == 0
    assert all(store.get(index) is not None for index in range(12))


def test_a_pickled_memory_store_has_a_block_of_its_own():
    store = MemoryStore(4, 1000, share=300)
    store.put(0, array())
    other = pickle.loads(pickle.dumps(store))
    assert other.get(0) is None
    other.put(0, array(shape=(20, 20, 4)))
    assert other.get(0) is None
    other.put(1, array(1))
    assert np.array_equal(other.get(1), array(1))
    assert store.get(1) is None


def flip_a_bit(data):
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


DAMAGES = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "last byte missing": lambda data: data[:-1],
    "one byte more": lambda data: data + b"x",
    "one bit": flip_a_bit,
    "no header": lambda data: b"\0" * len(data),
    "wild header": lambda data: data.replace(b"(5, 7, 4)", b"(((((((((", 1),
    "huge": lambda data: data.replace(b"(5, 7, 4), }      ", b"(5, 7, 400000000),", 1),
    "other type": lambda data: data.replace(b"|u1", b"|O8", 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_again(damage):
    stores("disk").put(0, array())
    (path,) = prepared_folder().iterdir()
    data = path.read_bytes()
    path.write_bytes(DAMAGES[damage](data))
    assert path.read_bytes() != data
    store = stores("disk")
    assert store.get(0) is None
    store.put(0, array())
    assert path.read_bytes() == data
    assert np.array_equal(store.get(0), array())


def test_entries_of_another_layout_and_pickles_are_not_taken(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    stores("disk").put(0, array(shape=(5, 7, 3)))
    assert stores("disk").get(0) is None
    path = prepared_folder() / f"{1:064x}.npy"
    np.save(path, np.array([Trap()], object), allow_pickle=True)
    assert stores("disk").get(1) is None
    assert not (tmp_path / "trapped").exists()


def test_an_entry_that_vanishes_is_made_again():
    store = stores("disk")
    store.put(0, array())
    assert store.get(0) is not None
    assert clear() > array().nbytes
    assert not prepared_folder().exists()
    assert store.get(0) is None
    store.put(0, array())  # the folder is gone: nothing is kept, nothing fails
    assert store.get(0) is None


def test_unused_entries_give_way_the_oldest_first():
    earlier = stores("disk", 1 << 20)
    for index in range(6):
        earlier.put(index, array(index))
    for number, path in enumerate(sorted(prepared_folder().iterdir())):
        os.utime(path, (time.time() - 1000 + number,) * 2)
    (prepared_folder() / ".torn.tmp").write_bytes(b"x" * 100)
    os.utime(prepared_folder() / ".torn.tmp", (1, 1))
    later = stores("disk", 6 * 300)
    assert later.get(0) is not None  # the oldest, but used now
    for index in range(10, 13):
        later.put(index, array(index))
    kept = [index for index in range(13) if later.get(index) is not None]
    assert {0, 5, 10, 11, 12} <= set(kept)
    assert 1 not in kept
    assert not (prepared_folder() / ".torn.tmp").exists()
    assert sum(path.stat().st_size for path in prepared_folder().iterdir()) <= 6 * 300


def test_a_folder_that_cannot_be_written_is_said_at_once(own_cache):
    own_cache.mkdir()
    prepared_folder().write_text("a file")
    with pytest.raises(InputError, match="--cache memory"):
        stores("disk")


def test_the_key_follows_the_content_and_the_spec_not_the_place(pairs_folder, tmp_path):
    pairs, _ = pair_files(*pairs_folder)
    key = Preparation(pairs, SPEC).key(0)
    assert Preparation(pairs, SPEC).key(1) != key
    for change in (
        {"scale": 0.5},
        {"resample": "bilinear"},
        {"channels": 1},
        {"ignore_value": 7},
        {"classes": class_infos([100, 0, 255])},
    ):
        assert Preparation(pairs, SPEC.replace(**change)).key(0) != key
    assert Preparation(pairs, SPEC, fast_decode=True).key(0) != key
    named = SPEC.replace(classes=class_infos([0, 100, 255], ["a", "b", "c"]), mean=(0.5,) * 3, multiple=32)
    assert Preparation(pairs, named).key(0) == key

    shutil.copytree(pairs_folder[0].parent, tmp_path / "moved")
    moved, _ = pair_files(tmp_path / "moved" / "images", tmp_path / "moved" / "masks")
    assert Preparation(moved, SPEC).key(0) == key
    for path in (moved[0].image, moved[0].mask):
        content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
        path.write_bytes(flip_a_bit(content))
        os.utime(path, ns=times)
        assert Preparation(moved, SPEC).key(0) != key  # though size and time are the same
        path.write_bytes(content)


def test_every_kind_of_cache_opens(pairs_folder):
    preparation = Preparation(pair_files(*pairs_folder)[0], SPEC)
    kinds = [type(open_store(kind, preparation)) for kind in CACHES]
    assert kinds == [MemoryStore, DiskStore, type(None)]
    with pytest.raises(InputError, match="memory, disk, none"):
        open_store("ram", preparation)
