import multiprocessing
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from study.errors import Refusal
from study.machine import Machine
from trainables.config import Config
from trainables.data import images as images_module
from trainables.data.datasets import facts
from trainables.data.folder import look
from trainables.data.images import ImageFiles
from trainables.data.loading import load
from trainables.data.places_lt import PlacesLT
from trainables.loop import Learner, evaluate, train_epoch
from trainables.origins import origin
from trainables.ranks import Ranks
from trainables.recipe import Epoch

SIDE = 56
EPOCH = Epoch(lr=0.1, crop=0, flip=True, batch_size=4)
MANY = replace(EPOCH, batch_size=100)
COUNTS, TEST = (5, 3, 2), 4


class Known(PlacesLT):
    side = SIDE
    jitter = 0.0


class Jittered(Known):
    jitter = 0.4


KNOWN = Known()


def ramps(width, height, level=128):
    """Return an image whose red grows from left to right and whose green grows from top to bottom, from 0 to 255."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack((across, down, np.full_like(down, level)), axis=2).round().astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write three classes of JPEG files of several sizes, which differ in blue."""
    root = tmp_path_factory.mktemp("images")
    level = 0
    for part, counts in (("train", COUNTS), ("test", (TEST,) * 3)):
        for name, count in zip("abc", counts, strict=True):
            (root / part / name).mkdir(parents=True)
            for k in range(count):
                level += 10
                ramps(100 + level // 4, 140 - level // 4, level).save(root / part / name / f"{k}.jpg", quality=95)
    return root


@pytest.fixture
def files(folder):
    """Return a function from a number of workers to the data set of that folder."""
    return partial(ImageFiles, KNOWN, look(folder), torch.device("cpu"))


def pixels(data, images):
    """Return normalised images as 0 … 255."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.facts.mean, data.facts.std))
    return (images * std + mean) * 255


def joined(batches):
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def drawn(data, seed=0, order=None, epoch=EPOCH):
    """Return one epoch's images and labels."""
    order = np.arange(int(data.counts.sum())) if order is None else np.asarray(order)
    return joined(data.batches(order, epoch, np.random.default_rng(seed)))


def origin_of(name):
    return replace(
        origin(Config(dataset="digits"), Machine("cpu", 1)), dataset=name, fingerprint=facts(name).fingerprint
    )


def test_a_rank_s_batches_are_its_shares_of_the_whole_ones(files):
    whole, *parts = files(0), *(files(0, ranks=Ranks(rank, 2)) for rank in range(2))
    order = np.random.default_rng(3).permutation(sum(COUNTS))
    draw = [list(each.batches(order, EPOCH, np.random.default_rng(1))) for each in (whole, *parts)]
    for batch, *shares in zip(*draw, strict=True):
        for rank, share in enumerate(shares):
            for own, all_of_it in zip(share, batch, strict=True):
                assert torch.equal(own, all_of_it[rank::2])
    for name in ("test_batches", "fit_batches"):
        there, *shares = (joined(getattr(each, name)()) for each in (whole, *parts))
        for rank, share in enumerate(shares):
            for own, all_of_it in zip(share, there, strict=True):
                assert torch.equal(own, all_of_it[rank::2])


# Evaluation


def centre(path, size=SIDE):
    """Return a file resized to a shorter side of 8/7 of the size, and cropped in the centre: (3, size, size)."""
    image, short = Image.open(path).convert("RGB"), size * 8 // 7
    width, height = image.size
    shape = (short, short * height // width) if width < height else (short * width // height, short)
    image = image.resize(shape, Image.Resampling.BILINEAR)
    left, top = ((have - size) / 2 for have in image.size)
    image = image.crop((round(left), round(top), round(left) + size, round(top) + size))
    return np.asarray(image).transpose(2, 0, 1)


def test_test_images_are_centre_crops_with_their_labels_and_parts(files, folder):
    data = files(0)
    images, labels, part = joined(data.test_batches())
    paths = [folder / "test" / name / f"{k}.jpg" for name in "abc" for k in range(TEST)]
    assert np.array_equal(pixels(data, images).round().numpy(), [centre(path) for path in paths])
    assert labels.tolist() == [0] * TEST + [1] * TEST + [2] * TEST
    assert part.tolist() == data.in_val.long().tolist()
    assert np.bincount(labels[data.in_val]).tolist() == [TEST // 2] * 3


def test_un_augmented_training_images_come_in_the_order_of_storage(files, folder, monkeypatch):
    monkeypatch.setattr(images_module, "EVALUATION_BATCH", 3)
    data = files(0)
    assert [len(labels) for _, labels in data.fit_batches()] == [3, 3, 3, 1]
    images, labels = joined(data.fit_batches())
    paths = [folder / "train" / name / f"{k}.jpg" for name, n in zip("abc", COUNTS, strict=True) for k in range(n)]
    assert np.array_equal(pixels(data, images).round().numpy(), [centre(path) for path in paths])
    assert labels.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]


def test_imagenet_s_size_is_256_for_224(tmp_path):
    for part, count in (("train", 1), ("test", 2)):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(count):
                ramps(400, 300).save(tmp_path / part / name / f"{k}.png")
    data = ImageFiles(facts("imagenet-lt"), look(tmp_path), torch.device("cpu"), 0)
    images, _ = joined(data.fit_batches())
    assert images.shape == (2, 3, 224, 224)
    resized = ramps(400, 300).resize((341, 256), Image.Resampling.BILINEAR).crop((58, 16, 282, 240))
    assert np.array_equal(pixels(data, images)[0].round().numpy(), np.asarray(resized).transpose(2, 0, 1))


# Augmentation


def crops(images):
    """Return from its corners the position of each crop of `ramps`, as shares of width and height, and its flip."""
    found = []
    for image in images:
        red, green = image[0].mean(0) / 255, image[1].mean(1) / 255
        left, right, top, bottom = red[0], red[-1], green[0], green[-1]
        found.append((abs(float(right - left)), float(bottom - top), bool(left > right)))
    return found


SHAPE = (102, 138)  # of the first training image
DECILES = np.arange(1, 10) / 10


def random_resized(width, height):
    """Return a random crop's width and height as shares of the image's: 8 % to 100 % of its area, ratio ¾ to 4/3."""
    rng = np.random.default_rng()
    for _ in range(10):
        area, ratio = rng.uniform(0.08, 1) * width * height, np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        across, down = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < across <= width and 0 < down <= height:
            return across / width, down / height
    return 1.0, (width * 4 / 3) / height  # the whole of it, as near as may be


def test_training_images_are_crops_of_random_size_and_shape_half_of_them_flipped(files):
    data = files(0)
    images, labels = drawn(data, order=[0] * 400, epoch=MANY)
    widths, heights, flipped = (np.asarray(values) for values in zip(*crops(pixels(data, images)), strict=True))
    assert images.shape == (400, 3, SIDE, SIDE)
    assert labels.tolist() == [0] * 400
    # Between the middles of its outermost pixels, a crop is 55/56 as wide as it is.
    expected = np.asarray([random_resized(*SHAPE) for _ in range(20_000)]) * (SIDE - 1) / SIDE
    for found, reference in ((widths, expected[:, 0]), (heights, expected[:, 1])):
        np.testing.assert_allclose(np.quantile(found, DECILES), np.quantile(reference, DECILES), atol=0.07)
    assert 160 < flipped.sum() < 240


def test_nothing_is_flipped_unless_the_instruction_says_so(files):
    data = files(0)
    images, _ = drawn(data, order=np.arange(10).repeat(10), epoch=replace(MANY, flip=False))
    assert not any(flipped for _, _, flipped in crops(pixels(data, images)))


def test_brightness_varies_where_the_data_set_says_so(tmp_path):
    for part, count in (("train", 1), ("test", 2)):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(count):
                Image.new("RGB", (64, 64), (100, 100, 100)).save(tmp_path / part / name / f"{k}.png")
    levels = {}
    for known in (KNOWN, Jittered()):
        data = ImageFiles(known, look(tmp_path), torch.device("cpu"), 0)
        images, _ = drawn(data, order=[0] * 200, epoch=MANY)
        flat = pixels(data, images).flatten(1)
        assert (flat.amax(1) - flat.amin(1) < 1e-3).all()  # a grey image stays grey and flat
        levels[known.jitter] = flat[:, 0].round()
    assert levels[0.0].unique().tolist() == [100]
    assert 60 <= levels[0.4].min() < 70 < 130 < levels[0.4].max() <= 140
    assert [facts(name).jitter for name in ("imagenet-lt", "places-lt", "inaturalist2018")] == [0.4, 0.4, 0.0]


# Determinism


def test_the_bits_are_the_same_for_any_number_of_workers(files):
    reference = None
    for workers in (0, 1, 2):
        data = files(workers)
        order = np.random.default_rng(3).permutation(10)
        found = [*drawn(data, 7, order), *joined(data.test_batches()), *joined(data.fit_batches())]
        reference = reference or found
        assert all(map(torch.equal, reference, found)), f"{workers} workers"


def test_an_image_s_augmentation_is_its_own_and_another_stream_gives_another(files):
    data = files(0)
    (whole, _), (batched, _) = drawn(data, 5), drawn(data, 5, epoch=replace(EPOCH, batch_size=3))
    assert torch.equal(whole, batched)
    twice, _ = drawn(data, 5, order=[4, 4])
    assert not torch.equal(twice[0], twice[1])
    assert not torch.equal(whole, drawn(data, 6)[0])


def test_the_process_s_own_random_numbers_are_neither_used_nor_moved(files):
    data = files(0)
    torch.manual_seed(1)
    images, before = drawn(data, 5)[0], torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(drawn(data, 5)[0], images)
    torch.manual_seed(1)
    drawn(data, 9)
    list(data.test_batches())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_two_passes_abreast_and_one_broken_off_disturb_nothing(workers, files):
    data = files(workers)
    orders = np.random.default_rng().integers(10, size=(2, 12))
    alone = [list(data.batches(order, EPOCH, np.random.default_rng(k))) for k, order in enumerate(orders)]
    broken = data.batches(orders[0], EPOCH, np.random.default_rng(8))
    next(broken)
    broken.close()
    passes = [data.batches(order, EPOCH, np.random.default_rng(k)) for k, order in enumerate(orders)]
    for step, pair in enumerate(zip(*passes, strict=True)):
        for walked, (images, labels) in zip(alone, pair, strict=True):
            assert torch.equal(walked[step][0], images)
            assert torch.equal(walked[step][1], labels)


def test_training_has_the_same_bits_whole_and_resumed_with_any_number_of_workers(files, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    begun = replace(origin_of(f"folder:{folder}"), backbone="resnet8")

    def train(data, indices, state=None):
        learner = Learner(begun)
        if state is not None:
            learner.load(state)
        for index in indices:
            measures = train_epoch(learner, data, EPOCH, index) | evaluate(learner, data, EPOCH)
        return {name: tensor.clone() for name, tensor in learner.state().items()}, measures

    whole, measures = train(files(0), range(3))
    first, _ = train(files(1), range(1))
    resumed, again = train(files(2), range(1, 3), first)
    assert measures == again
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


# Files as they are


@pytest.fixture
def copy(folder, tmp_path):
    """Return a copy of the folder that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "images"))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_images_of_every_mode_become_rgb(mode, copy):
    grey = Image.new("RGB", (64, 64), (90, 90, 90))
    kept = {"P": lambda: grey.quantize(2), "I;16": lambda: Image.new("I;16", (64, 64))}.get(
        mode, lambda: grey.convert(mode)
    )
    (copy / "train/a/0.jpg").unlink()
    kept().save(copy / "train/a/0.tif")
    data = ImageFiles(KNOWN, look(copy), torch.device("cpu"), 0)
    images, _ = joined(data.fit_batches())
    assert images.shape == (10, 3, SIDE, SIDE)
    if mode not in ("1", "I;16"):  # black and white, and 65,536 greys, are not 90
        assert (pixels(data, images)[0].round() == 90).all()


def complaint(batches):
    """Return the message about an image that cannot be decoded, without the exception, which would keep the workers."""
    try:
        list(batches)
    except Refusal as refusal:
        return str(refusal)
    return pytest.fail("nothing is wrong")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_no_image_is_named_and_a_good_one_in_its_place_is_read(workers, copy):
    bad = copy / "train/b/1.jpg"
    data = ImageFiles(KNOWN, look(copy), torch.device("cpu"), workers)
    good = bad.read_bytes()
    for content in (b"", b"not an image", good[: len(good) // 2], None):
        bad.unlink() if content is None else bad.write_bytes(content)
        for batches in (data.batches(np.arange(10), EPOCH, np.random.default_rng()), data.fit_batches()):
            line = complaint(batches)
            assert line.startswith(f"image '{bad}' cannot be decoded (")
            assert ". Replace it by a file that Pillow reads. The " in line
            assert "\n" not in line
    bad.write_bytes(good)
    assert drawn(data)[0].shape == (10, 3, SIDE, SIDE)


def test_a_worker_that_dies_is_not_the_training_s_fault_and_another_takes_its_place(files):
    others = {process.pid for process in multiprocessing.active_children()}
    data = files(1)
    expected = joined(data.fit_batches())
    (worker,) = [process for process in multiprocessing.active_children() if process.pid not in others]
    worker.kill()
    with pytest.raises(OSError, match="a process that decodes images has died"):
        list(data.fit_batches())
    assert all(map(torch.equal, expected, joined(data.fit_batches())))


# Loading


def test_a_folder_is_loaded_once_by_its_name(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = load(origin_of(f"folder:{folder}"), EPOCH, None, 0)
    assert data is load(origin_of(f"folder:{folder}"), replace(EPOCH, lr=0.2, flip=False), None, 0)
    assert data.counts.tolist() == list(COUNTS) == list(data.facts.train_counts)
    assert data.shots == {"many": [], "medium": [], "few": [0, 1, 2]}
    assert drawn(data)[0].shape == (10, 3, 224, 224)


def test_a_folder_that_changed_since_the_plan_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    planned = replace(origin_of(f"folder:{folder}"), fingerprint="sha256:another")
    with pytest.raises(Refusal, match=r"^fingerprint of folder:.* must be sha256:another, as in the plan"):
        load(planned, EPOCH, None, 0)


TINY = f"""
from trainables.data.facts import Lists
from trainables.data.inaturalist2018 import INaturalist2018


class Tiny(INaturalist2018):
    classes = 3
    largest = 12
    natural = 6.0
    lists = Lists("Tiny", 21, 12, 0)
    side = {SIDE}
"""


def test_a_data_set_of_lists_is_loaded_from_them(folder, tmp_path):
    (tmp_path / "tiny.py").write_text(TINY)
    known = f"{tmp_path}/tiny.py:Tiny"
    (tmp_path / "Tiny").mkdir()
    for name in ("train", "test"):
        (tmp_path / "Tiny" / name).symlink_to(folder / name)
    train = [
        f"train/{name}/{k % most}.jpg {label}"
        for name, n, most, label in (("c", 2, 2, 0), ("b", 7, 3, 2), ("a", 12, 5, 1))
        for k in range(n)
    ]
    val = [f"test/{name}/{k}.jpg {label}" for k in range(TEST) for name, label in (("b", 2), ("c", 0), ("a", 1))]
    (tmp_path / "Tiny/Tiny_train.txt").write_text("\n".join(train))
    (tmp_path / "Tiny/Tiny_val.txt").write_text("\n".join(val))
    data = load(origin_of(known), EPOCH, tmp_path, 0)
    assert data.counts.tolist() == [11, 7, 2]
    assert data.in_val.tolist() == [True] + [False] * 12
    images, labels, part = joined(data.test_batches())
    assert labels.tolist() == [0] + [1, 2, 0] * TEST
    assert part.tolist() == [1] + [0] * 12
    expected = [centre(tmp_path / "Tiny" / line.split()[0]) for line in val]
    assert np.array_equal(pixels(data, images)[1:].round().numpy(), expected)
