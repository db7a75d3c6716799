"""CIFAR's batches and image folders: tiny ones, written as published and read as the real ones are."""

import os
import pickle
import re
import shutil
import tarfile
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from image_files import write_cifar10, write_cifar100, write_images
from PIL import Image

from snn_probe.data import (
    batches,
    cifar,
    decoded,
    describe,
    fetch,
    images,
    load,
    ordering,
    read_classes,
    sources,
    streams,
)
from snn_probe.data.augment import CropFlipCutout
from snn_probe.data.examples import Split
from snn_probe.data.streams import StreamSplit

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


def sentence(text):
    return "^" + re.escape(text) + "$"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Decoded images go to a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("SNNPROBE_DATA", raising=False)


def pixels(split):
    """The stored uint8 images."""
    assert split.stored.dtype == torch.uint8
    return split.stored


# --- cuts ---


@pytest.mark.parametrize("sizes", [[20, 20, 20], [30, 7, 1], [4, 5, 6]])
def test_cut_is_stratified_complete_and_in_turn(sizes):
    labels = np.random.RandomState(1).permutation(np.repeat([0, 1, 2], sizes))
    parts = ordering.cut(labels)
    assert sorted([*parts["train"], *parts["validation"]]) == list(range(len(labels)))
    for label, size in enumerate(sizes):
        validation = int((labels[parts["validation"]] == label).sum())
        assert validation == (0 if size == 1 else max(1, round(size / 10)))
    for part in parts.values():
        counts = np.bincount(labels[part], minlength=3)
        for length in range(3 * int(counts.min())):
            prefix = np.bincount(labels[part[:length]], minlength=3)
            assert prefix.max() - prefix.min() <= 1
    assert all(np.array_equal(ordering.cut(labels)[name], part) for name, part in parts.items())


# --- CIFAR ---


def test_cifar10_splits_hold_every_image_once_with_its_label(tmp_path):
    written, labels = write_cifar10(tmp_path)
    train, validation, test = (load("cifar10", name, root=tmp_path) for name in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (180, 20, 40)
    found = torch.cat([pixels(train), pixels(validation)])
    known = {image.tobytes(): label for image, label in zip(written, labels, strict=True)}
    assert len({image.numpy().tobytes() for image in found}) == 200
    together = torch.cat([train.labels, validation.labels]).tolist()
    assert [known[image.numpy().tobytes()] for image in found] == together
    assert [split.labels[:20].tolist() for split in (train, validation, test)] == [[*range(10)] * 2] * 3
    assert load("cifar10", "train", root=tmp_path, num_examples=30).labels.tolist() == [*range(10)] * 3


def test_cifar_is_what_torchvisions_reader_and_transforms_make_of_it(tmp_path, monkeypatch):
    from torchvision import datasets, transforms

    write_cifar10(tmp_path)
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)  # these are not the published files
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
    normalize = transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    peer = datasets.CIFAR10(tmp_path, train=False, transform=transforms.Compose([transforms.ToTensor(), normalize]))
    ours = load("cifar10", "test", root=tmp_path)
    order = ordering.balanced(np.array(peer.targets))
    inputs, labels = ours.take(torch.arange(40))
    torch.testing.assert_close(inputs, torch.stack([peer[int(k)][0] for k in order]), rtol=1e-5, atol=1e-5)
    assert labels.tolist() == [peer.targets[k] for k in order]
    assert inputs.dtype == torch.float32 and torch.equal(inputs, ours.inputs)
    assert torch.equal(torch.cat([x for x, _ in batches(ours, 7)]), inputs)
    assert datasets.CIFAR10.base_folder == cifar.LAYOUTS["cifar10"].folder
    for name, theirs in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        layout = cifar.LAYOUTS[name]
        assert (layout.folder, layout.archive) == (theirs.base_folder, theirs.filename)
        assert list(layout.train) == [file for file, _ in theirs.train_list]
        assert list(layout.test) == [file for file, _ in theirs.test_list]


def test_cifar100_has_fine_labels_and_its_own_normalisation(tmp_path):
    write_cifar100(tmp_path)
    info, split = describe("cifar100"), load("cifar100", "test", root=tmp_path)
    assert (info.num_classes, len(info.classes), info.input_shape) == (100, 100, (3, 32, 32))
    assert list(info.classes) == sorted(info.classes) and split.labels.tolist() == [*range(100)]
    assert split.normalization.mean == (0.5071, 0.4867, 0.4408)
    assert len(load("cifar100", "train", root=tmp_path)) == 100
    assert isinstance(split.augmentation, CropFlipCutout)


def test_cifar_at_another_size(tmp_path):
    write_cifar10(tmp_path)
    assert describe("cifar10", image_size=16).input_shape == (3, 16, 16)
    half, whole = (load("cifar10", "test", root=tmp_path, image_size=size) for size in (16, None))
    assert pixels(half).shape == (40, 3, 16, 16) and half.augmentation == CropFlipCutout(2, 8)
    exact = torch.nn.functional.interpolate(whole.stored.float(), size=(16, 16), mode="bilinear", antialias=True)
    assert (pixels(half).float() - exact).abs().max() <= 1  # rounding


def test_written_tensors_and_new_files_are_noticed(tmp_path):
    write_cifar10(tmp_path)
    first = load("cifar10", "test", root=tmp_path)
    before = first.stored.clone()
    first.stored.fill_(0)
    assert torch.equal(load("cifar10", "test", root=tmp_path).stored, before)
    write_cifar10(tmp_path, per_class=5, seed=1)
    assert len(load("cifar10", "test", root=tmp_path)) == 50


def test_a_batch_as_python_2_wrote_it(tmp_path):
    """The published files: text as bytes (U, T), numpy.core, the array's bytes as one such text; opcode by opcode."""
    image = np.arange(3072).astype(np.uint8)
    path = tmp_path / "batch"
    path.write_bytes(
        b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85"
        b"U\x01b\x87Rq\x04(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87Rq\x06"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00" + image.tobytes() + b"tb"
        b"U\x06labelsq\x07]q\x08K\x03aU\x09filenamesq\x09]q\x0aU\x05a.pngau."
    )
    images, labels = cifar.read_batch(path, cifar.LAYOUTS["cifar10"])
    assert np.array_equal(images.reshape(-1), image) and labels.tolist() == [3]
    fortran = np.asfortranarray(np.arange(2 * 3072).astype(np.uint8).reshape(2, 3072))
    path.write_bytes(pickle.dumps({"data": fortran, "labels": [3, 1]}, protocol=2))
    assert np.array_equal(cifar.read_batch(path, cifar.LAYOUTS["cifar10"])[0].reshape(2, -1), fortran)


class Program:
    def __reduce__(self):
        return os.system, ("touch hacked",)


class Foreign:
    """An array that says it has more elements than bytes."""

    def __reduce__(self):
        from numpy._core.multiarray import _reconstruct

        return _reconstruct, (np.ndarray, (0,), b"b"), (1, (10**15, 3072), np.dtype("u1"), False, b"1234")


GOOD = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"data": Program(), "labels": [0]},
            r" holds the program (posix|nt)\.system, which a batch of CIFAR does not; ",
        ),
        ({"data": GOOD.astype(float), "labels": [0, 1]}, " holds an array of type 'f8', which"),
        ({"data": np.array([[{}]], dtype=object), "labels": [0]}, " holds an array of type 'O8', which"),
        ({"data": GOOD[:, :3000], "labels": [0, 1]}, r" holds images of shape \(2, 3000\), which"),
        ({"data": GOOD, "labels": [0]}, " holds 2 images with 1 labels, which"),
        ({"data": GOOD, "labels": 7}, " holds 2 images with no labels, which"),
        ({"data": GOOD, "labels": [0, 10]}, " holds labels beyond 0 to 9, which"),
        ({"data": GOOD, "labels": [0, True]}, " holds labels beyond 0 to 9, which"),
        ({"labels": [0]}, r" is no batch of CIFAR or is cut off \(KeyError\); "),
        ({"data": Foreign(), "labels": [0]}, r" is no batch of CIFAR or is cut off \(ValueError\); "),
        ([1, 2], r" is no batch of CIFAR or is cut off \(TypeError\); "),
    ],
)
def test_a_hostile_or_foreign_batch_is_refused(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    write_cifar10(tmp_path)
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match="^" + re.escape(str(path)) + said) as caught:
        load("cifar10", "test", root=tmp_path)
    assert str(caught.value).endswith(f"unpack cifar-10-python.tar.gz from {PAGE} again.")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_cut_off_batch_is_refused(tmp_path, kept):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="^" + re.escape(f"{path} is no batch of CIFAR or is cut off (")):
        load("cifar10", "train", root=tmp_path)
    load("cifar10", "test", root=tmp_path)


def test_later_pickle_protocols_and_huge_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": GOOD, "labels": [0, 1]}, protocol=5))
    with pytest.raises(ValueError, match=r"batch is no batch of CIFAR or is cut off \(KeyError\)"):
        cifar.read_batch(path, cifar.LAYOUTS["cifar10"])
    path.write_bytes(b"\x80\x02" + b"\x82\x01.")  # a registered extension
    with pytest.raises(ValueError, match="holds a registered extension, which"):
        cifar.read_batch(path, cifar.LAYOUTS["cifar10"])
    monkeypatch.setattr(cifar, "MAX_BYTES", 100)
    path.write_bytes(bytes(101))
    message = f"{path} is larger than any batch of CIFAR (100 bytes at most); "
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        cifar.read_batch(path, cifar.LAYOUTS["cifar10"])


def test_missing_cifar_says_which_file_and_where_to_get_it(tmp_path, monkeypatch):
    command = f"run snnprobe data --data-root {tmp_path} --download cifar10"
    expected = f"expected the folder {tmp_path}/cifar-10-batches-py"
    message = f"{tmp_path} has no cifar10: {expected}; {command}, or unpack cifar-10-python.tar.gz from {PAGE} there."
    with pytest.raises(ValueError, match=sentence(message)):
        load("cifar10", "train", root=tmp_path)
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.touch()
    message = f"{tmp_path} has no cifar10: {archive} is not unpacked yet; run tar -xzf {archive} -C {tmp_path}."
    with pytest.raises(ValueError, match=sentence(message)):
        load("cifar10", "train", root=tmp_path)
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.unlink()
    message = f"{path} is missing from the batches of CIFAR; unpack cifar-10-python.tar.gz from {PAGE} again."
    with pytest.raises(ValueError, match=sentence(message)):
        load("cifar10", "train", root=tmp_path)


def test_the_root_may_come_from_the_environment(tmp_path, monkeypatch):
    message = (
        "the folder of the data sets is not known; give it with --data-root DIR (root), or set the environment "
        "variable SNNPROBE_DATA."
    )
    with pytest.raises(ValueError, match=sentence(message)):
        load("cifar10", "test")
    missing = tmp_path / "none"
    message = f"{missing} is no folder; give the folder of the data sets with --data-root DIR (root) or SNNPROBE_DATA."
    with pytest.raises(ValueError, match=sentence(message)):
        load("cifar10", "test", root=missing)
    write_cifar10(tmp_path / "cifar10")
    monkeypatch.setenv("SNNPROBE_DATA", str(tmp_path))
    assert len(load("cifar10", "test")) == 40


@pytest.fixture
def server():
    """A function that serves the files of a folder on this machine, and says at which port."""
    started = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    def serve(folder):
        started.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))))
        Thread(target=started[-1].serve_forever, daemon=True).start()
        return started[-1].server_port

    yield serve
    for one in started:
        one.shutdown()
        one.server_close()


def test_download_unpacks_the_checked_archive(tmp_path, monkeypatch, server):
    import hashlib

    from torchvision import datasets

    made = tmp_path / "made"
    write_cifar10(made)
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(made / "cifar-10-batches-py", "cifar-10-batches-py")
    url = f"http://127.0.0.1:{server(tmp_path)}/{archive.name}"
    monkeypatch.setattr(datasets.CIFAR10, "url", url)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", "0" * 32)
    root = tmp_path / "root"
    message = f"cifar10 could not be downloaded from {url} (File not found or corrupted.); try again"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        load("cifar10", "test", root=root, download=True)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    (root / "cifar-10-batches-py").mkdir(parents=True)  # half a copy
    assert len(load("cifar10", "test", root=root, download=True)) == 40
    monkeypatch.setattr(datasets.CIFAR10, "url", url := url + ".gone")
    fetch("cifar10", root=root)  # nothing to do
    shutil.rmtree(root / "cifar-10-batches-py")
    (root / "cifar-10-python.tar.gz").unlink()
    message = f"cifar10 could not be downloaded from {url} (HTTP Error 404: File not found); try again, or unpack "
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        fetch("cifar10", root=root)


# --- image folders ---

CLASSES = {"bee": 20, "ant": 20, "cat": 10}


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "train", CLASSES)
    write_images(tmp_path / "test", {"ant": 3, "bee": 3, "cat": 3}, seed=1)
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "readme.txt").write_text("nor this")
    return tmp_path


def test_a_folder_is_what_torchvisions_reader_makes_of_it(folder):
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor

    shutil.rmtree(folder / "train" / ".hidden")
    peer = ImageFolder(folder / "train")
    train, validation = (load("image-folder", name, root=folder) for name in ("train", "validation"))
    parts = ordering.cut(np.array(peer.targets))
    for split, order in ((train, parts["train"]), (validation, parts["validation"])):
        assert torch.equal(pixels(split), torch.stack([pil_to_tensor(peer[int(k)][0]) for k in order]))
        assert split.labels.tolist() == [peer.targets[k] for k in order]
    info = describe("image-folder", root=folder)
    assert list(info.classes) == peer.classes == ["ant", "bee", "cat"]
    assert (info.input_shape, info.num_classes, info.temporal) == ((3, 32, 32), 3, False)
    assert (len(train), len(validation), len(load("image-folder", "test", root=folder))) == (45, 5, 9)


def test_val_is_validation_only_where_there_is_also_test(folder):
    write_images(folder / "val", {"ant": 2, "bee": 2}, seed=2)
    sizes = [len(load("image-folder", name, root=folder)) for name in ("train", "validation", "test")]
    assert sizes == [50, 4, 9]
    shutil.rmtree(folder / "test")
    sizes = [len(load("image-folder", name, root=folder)) for name in ("train", "validation", "test")]
    assert sizes == [45, 5, 4]


def test_classes_choose_and_order_the_labels(folder):
    info = describe("image-folder", root=folder, classes=("cat", "ant"))
    assert info.classes == ("cat", "ant") and info.num_classes == 2
    split = load("image-folder", "test", root=folder, classes=("cat", "ant"))
    whole = load("image-folder", "test", root=folder)
    assert split.labels.tolist() == [0, 1] * 3
    assert torch.equal(split.stored[split.labels == 0], whole.stored[whole.labels == 2])


def test_read_classes(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("n02869837 bonnet, poke bonnet\n\n  n01749939\tgreen mamba\r\nn02488291\n")
    assert read_classes(file) == ("n02869837", "n01749939", "n02488291")
    advice = "give a text file with the name of one class folder at the beginning of each line."
    file.write_text("\n \n")
    with pytest.raises(ValueError, match=sentence(f"{file} names no class; {advice}")):
        read_classes(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="^" + re.escape(f"{file} is no list of classes ('utf-8' codec")):
        read_classes(file)
    with open(file, "wb") as made:
        made.truncate(2**20 + 1)
    with pytest.raises(ValueError, match=sentence(f"{file} is no list of classes (more than 1048576 bytes); {advice}")):
        read_classes(file)
    with pytest.raises(ValueError, match=sentence(f"{tmp_path} cannot be read (Is a directory); {advice}")):
        read_classes(tmp_path)


def test_folders_that_are_wrong(folder, tmp_path):
    def refused(message, **arguments):
        with pytest.raises(ValueError, match=sentence(message)):
            load("image-folder", **{"split": "train", "root": folder, **arguments})

    train = folder / "train"
    refused(
        f"classes has 'dog', which is no folder in {train}; its 3 folders are ant, bee, cat.", classes=("ant", "dog")
    )
    refused("classes has 'ant' twice; name each class once.", classes=("ant", "bee", "ant"))
    refused("classes is empty; name at least one class folder, or leave it out for all of them.", classes=())
    refused(
        "num_examples is 46, but the train split of image-folder has 45 examples; "
        "give a whole number from 1 to 45, or None for all of them.",
        num_examples=46,
    )
    (folder / "test" / "dog").mkdir()
    refused(f"{folder}/test/dog is a class without training images; expected {train}/dog, or name the classes to use.")
    shutil.rmtree(folder / "test")
    refused(f"{folder} has train but neither val nor test; put the held-out images in {folder}/val/CLASS/.")
    write_images(folder / "test", {"cat": 1})
    refused(
        f"{folder}/test has none of the class folders of the training images; expected {folder}/test/ant and others.",
        split="test",
        classes=("ant", "bee"),
    )
    (folder / "test" / "cat" / "0.png").unlink()
    refused(
        f"the test split of {folder} is empty: {folder}/test has 0 images of its 3 classes; "
        f"expected {folder}/test/CLASS/IMAGE with at least two images per class.",
        split="test",
    )
    shutil.rmtree(train / "ant")
    (train / "ant").mkdir()
    refused(f"{train}/ant has no images; put images there, or remove the folder.")
    for name in CLASSES:
        shutil.rmtree(train / name)
    refused(f"{train} has no class folders; expected {train}/CLASS/IMAGE with one folder per class.")
    shutil.rmtree(train)
    expected = (
        f"expected {folder}/train/CLASS/ and {folder}/test/CLASS/ (or val) with images, or frames (.npy, .npz), in them"
    )
    refused(f"{folder} has no image-folder: {expected}.")
    missing = f"image-folder cannot be downloaded by a program; {folder} has no image-folder: {expected}."
    refused(missing, download=True)


def test_describe_refuses(folder):
    def refused(message, name, **arguments):
        with pytest.raises(ValueError, match=sentence(message)):
            describe(name, **arguments)

    for size in (0, 1025, 2.0, True, "32"):
        message = f"image_size is {size!r}; give a whole number of pixels from 1 to 1024."
        refused(message, "cifar10", image_size=size)
    refused("image_size is 16, but digits is always 8x8 pixels; leave it out.", "digits", image_size=16)
    refused("image_size is 8, but event-digits is always 16x16 pixels; leave it out.", "event-digits", image_size=8)
    message = "classes is given, but those of cifar10 are fixed; it is for imagenet and image-folder alone."
    refused(message, "cifar10", classes=("cat",))
    with pytest.raises(ValueError, match=sentence("digits comes with scikit-learn; there is nothing to download.")):
        fetch("digits")


# --- decoding ---


def test_pictures_of_every_kind_become_rgb(tmp_path):
    grey = Image.fromarray(np.arange(64).astype(np.uint8).reshape(8, 8) * 3)
    for mode, suffix in (("L", ".png"), ("P", ".png"), ("RGBA", ".png"), ("CMYK", ".jpg"), ("1", ".bmp")):
        path = tmp_path / f"{mode}{suffix}"
        grey.convert(mode).save(path)
        found = images.read_image(str(path), 8, images.centre)
        assert found.shape == (3, 8, 8) and found.dtype == np.uint8 and found.flags["C_CONTIGUOUS"]
    assert np.array_equal(images.read_image(str(tmp_path / "L.png"), 8, images.centre)[1], np.asarray(grey))


@pytest.mark.parametrize("size", [(500, 375), (256, 256), (180, 640), (224, 224)])
def test_the_view_for_measuring_is_torchvisions_resize_and_centre_crop(tmp_path, size):
    from torchvision import transforms

    write_images(tmp_path, {"a": 1}, size=size)
    path = tmp_path / "a" / "0.png"
    with Image.open(path) as picture:
        peer = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(picture)
    ours = images.read_image(str(path), 224, images.centre).transpose(1, 2, 0)
    error = np.abs(ours.astype(float) - np.asarray(peer))
    assert error.mean() < 1  # the peer rounds the size and the place to whole pixels


def test_random_crops_keep_their_promises():
    rng = np.random.RandomState(0)
    views = [images.random_crop(400, 300, rng) for _ in range(2000)]
    areas = np.array([(r - left) * (b - t) for (left, t, r, b), _ in views]) / (400 * 300)
    aspects = np.array([(r - left) / (b - t) for (left, t, r, b), _ in views])
    assert all(0 <= left < r <= 400 and 0 <= t < b <= 300 for (left, t, r, b), _ in views)
    assert 0.075 < areas.min() < 0.1 and areas.max() > 0.9 and 0.74 < aspects.min() and aspects.max() < 1.35
    assert abs(sum(mirrored for _, mirrored in views) - 1000) < 4 * 500**0.5
    (left, top, right, bottom), _ = images.random_crop(1000, 10, rng)  # nothing fits: the middle, at most 4:3
    assert (right - left, bottom - top, top) == (13, 10, 0) and left == 493


def test_a_mirrored_view_is_mirrored(tmp_path):
    write_images(tmp_path, {"a": 1})
    path = str(tmp_path / "a" / "0.png")
    whole = (0, 0, 32, 32)
    plain, mirrored = (images.read_image(path, 32, lambda *_, m=m: (whole, m)) for m in (False, True))
    assert np.array_equal(mirrored, plain[:, :, ::-1]) and not np.array_equal(mirrored, plain)


@pytest.mark.parametrize("image_size", [32, 96])  # in memory, and streamed
def test_a_damaged_image_is_named(folder, image_size):
    path = folder / "train" / "bee" / "7.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError) as caught:
        for name in ("train", "validation"):
            split = load("image-folder", name, root=folder, image_size=image_size)
            list(batches(split, 8))
    said = str(caught.value)
    assert said.startswith(f"{path} cannot be read as an image (") and "\n" not in said
    assert said.endswith("; replace the file or delete it.")


def test_an_image_that_says_it_is_huge_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(path)
    for limit in (799, 1000):  # beyond twice the limit Pillow raises an error, below it a warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        message = f"{path} says that it has more than {limit} pixels, which is refused; replace the file or delete it."
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as outside of these tests
            for call in (
                lambda: images.read_image(str(path), 8, images.centre),
                lambda: images.picture_size(str(path)),
            ):
                with pytest.raises(ValueError, match=sentence(message)):
                    call()


def test_decoded_images_are_kept_until_a_file_changes(folder, monkeypatch):
    first = load("image-folder", "test", root=folder)
    (kept,) = decoded.folder().iterdir()
    read = []
    monkeypatch.setattr(StreamSplit, "decoded", lambda self, order, **_: read.append(len(order)) or iter(()))
    again = load("image-folder", "test", root=folder)
    assert torch.equal(again.stored, first.stored) and not read
    some = load("image-folder", "test", root=folder, num_examples=4)
    assert torch.equal(some.stored, first.stored[:4]) and some.labels.tolist() == first.labels[:4].tolist() and not read
    again.stored.fill_(0)
    assert torch.equal(load("image-folder", "test", root=folder).stored, first.stored)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept.parents[2]))
    write_images(folder / "test", {"ant": 1}, seed=9)  # one file is another now
    changed = load("image-folder", "test", root=folder)
    assert len(list(decoded.folder().iterdir())) == 2 and not torch.equal(changed.stored, first.stored)
    os.utime(folder / "test" / "ant" / "1.png", ns=(0, 0))  # as many bytes, but of another time
    load("image-folder", "test", root=folder)
    assert len(list(decoded.folder().iterdir())) == 3
    for file in decoded.folder().iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(load("image-folder", "test", root=folder).stored, changed.stored)


def test_a_few_images_are_decoded_without_a_cache_and_without_the_rest(folder, monkeypatch):
    some = load("image-folder", "train", root=folder, num_examples=6)
    assert not decoded.folder().exists() and some.stored.shape == (6, 3, 32, 32)
    assert torch.equal(some.stored, load("image-folder", "train", root=folder).stored[:6])
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "train" / "readme.txt"))  # cannot be written
    assert len(load("image-folder", "test", root=folder)) == 9


# --- streaming ---


@pytest.fixture
def imagenet(tmp_path):
    for part, count in (("train", 12), ("val", 3)):
        classes = {"n01440764": count, "n01443537": count}
        write_images(tmp_path / "imagenet" / part, classes, size=(70, 50), suffix=".JPEG", seed=count)
    write_images(tmp_path / "imagenet", {"test": 2}, suffix=".JPEG")  # the official ones, which have no labels
    return tmp_path


def test_imagenet_streams_and_its_test_split_is_val(imagenet):
    splits = {name: load("imagenet", name, root=imagenet) for name in ("train", "validation", "test")}
    assert [len(split) for split in splits.values()] == [22, 2, 6]
    info = describe("imagenet", root=imagenet)
    assert (info.classes, info.num_classes, info.input_shape) == (("n01440764", "n01443537"), 2, (3, 224, 224))
    test = splits["test"]
    assert isinstance(test, StreamSplit) and test.labels.tolist() == [0, 1] * 3
    inputs, labels = test.take(torch.tensor([4, 1]))
    assert inputs.shape == (2, 3, 224, 224) and inputs.dtype == torch.float32 and labels.tolist() == [0, 1]
    raw = torch.from_numpy(images.read_image(test.files[1], 224, images.centre)).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(inputs[1], (raw - mean[:, None, None]) / std[:, None, None], rtol=1e-5, atol=1e-5)
    small = load("imagenet", "train", root=imagenet, image_size=80, num_examples=5, classes=("n01443537",))
    assert small.take(torch.arange(5))[0].shape == (5, 3, 80, 80) and small.labels.tolist() == [0] * 5
    (imagenet / "imagenet" / "val").rename(imagenet / "imagenet" / "held-out")
    with pytest.raises(ValueError, match="^" + re.escape(f"{imagenet} has no imagenet: expected {imagenet}/imagenet/")):
        load("imagenet", "test", root=imagenet)
    with pytest.raises(ValueError, match=r"^imagenet cannot be downloaded by a program; .*https://image-net.org/"):
        fetch("imagenet", root=imagenet)


def test_streamed_batches_come_again_in_order_and_leave_random_state_alone(imagenet):
    split = load("imagenet", "train", root=imagenet, image_size=80)
    state = torch.get_rng_state()
    pieces = batches(split, 6)
    first, second = list(pieces), list(pieces)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(labels) for _, labels in first] == [6, 6, 6, 4] and len(pieces) == 4
    whole, labels = split.take(torch.arange(22))
    for found in (first, second):
        assert torch.equal(torch.cat([x for x, _ in found]), whole)
        assert torch.equal(torch.cat([y for _, y in found]), labels) and torch.equal(labels, split.labels)
    assert list(split.feed([])) == []


@pytest.mark.parametrize("image_size", [32, 96])
def test_copies_of_an_image_are_augmented_each_in_its_own_way(tmp_path, image_size):
    write_images(tmp_path / "train", {"a": 1}, size=(120, 90))
    write_images(tmp_path / "test", {"a": 1})
    for number in range(1, 25):
        shutil.copy(tmp_path / "train" / "a" / "0.png", tmp_path / "train" / "a" / f"{number}.png")
    split = load("image-folder", "train", root=tmp_path, image_size=image_size)
    inputs, _ = next(split.feed([torch.arange(22)], augment_seed=0))
    assert len({image.numpy().tobytes() for image in inputs}) > 18
    assert len({image.numpy().tobytes() for image in split.take(torch.arange(22))[0]}) == 1


@pytest.mark.parametrize("kind", ["resized crop", "crop, flip, cutout"])
def test_streamed_augmentation_depends_on_seed_and_example_alone(imagenet, monkeypatch, kind):
    if kind != "resized crop":
        monkeypatch.setattr(sources, "MEMORY_LIMIT", 100)  # small images that do not fit
    size = 80 if kind == "resized crop" else 32
    split = load("imagenet", "train", root=imagenet, image_size=size)
    assert isinstance(split, StreamSplit)

    def fed(order, seed=2**40 + 5):
        found = torch.empty(22, 3, size, size)
        for indices, (inputs, labels) in zip(order, split.feed(order, augment_seed=seed), strict=True):
            found[indices] = inputs
            assert torch.equal(labels, split.labels[indices])
        return found

    whole = fed([torch.arange(22)])  # in this process; what follows comes from workers
    shuffled = torch.randperm(22, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fed(shuffled.split(5)), whole)
    monkeypatch.setattr(streams, "_cores", lambda: 1)
    assert torch.equal(fed(shuffled.split(2)), whole)
    for other in (2**40 + 6, 5):  # the upper half of the seed counts too
        assert not torch.equal(fed([torch.arange(22)], seed=other), whole)
    plain = split.take(torch.arange(22))[0]
    assert not torch.equal(plain, whole) and torch.equal(next(split.feed([torch.arange(22)]))[0], plain)


def test_small_images_in_memory_and_streamed_are_the_same(folder, monkeypatch):
    kept = load("image-folder", "train", root=folder)
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 100)
    streamed = load("image-folder", "train", root=folder)
    assert isinstance(kept, Split) and isinstance(streamed, StreamSplit)
    for seed in (None, 3):
        order = torch.randperm(45, generator=torch.Generator().manual_seed(1)).split(20)
        for ours, theirs in zip(
            kept.feed(order, augment_seed=seed), streamed.feed(order, augment_seed=seed), strict=True
        ):
            assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_processes_of_a_run_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert streams._cores() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    assert streams._cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "50")
    assert streams._cores() == 1


# --- recorded events, through the common interface ---


def test_event_sets_come_as_float32_batches_with_their_augmentation(tmp_path):
    rng = np.random.RandomState(0)
    for part, count in (("Train", 3), ("Test", 1)):
        for label in range(10):
            place = tmp_path / "n-mnist" / part / str(label)
            place.mkdir(parents=True)
            for number in range(count):
                events = rng.randint(0, 34, (60, 5)).astype(np.uint8)
                events[:, 2] = rng.randint(0, 2, 60) << 7
                name = label * count + number + 1
                (place / f"{name:05d}.bin").write_bytes(events.tobytes())
    info = describe("n-mnist", image_size=17)
    assert info.input_shape == (2, 17, 17) and describe("n-mnist").input_shape == (2, 34, 34)
    whole = load("n-mnist", "train", root=tmp_path, num_steps=3)
    some = load("n-mnist", "train", root=tmp_path, num_steps=3, num_examples=7, image_size=17)
    assert whole.labels.tolist() == [*range(10)] * 2 and some.labels.tolist() == [*range(7)]
    assert (len(load("n-mnist", "test", root=tmp_path, num_steps=3)), some.inputs.shape) == (10, (7, 3, 2, 17, 17))
    inputs, _ = whole.take(torch.arange(20))
    assert inputs.dtype == torch.float32 and inputs.sum() == 60 * 20
    moved, _ = next(whole.feed([torch.arange(20)], augment_seed=1))
    assert not torch.equal(moved, inputs) and torch.equal(moved.sum((1, 2, 3, 4)), inputs.sum((1, 2, 3, 4)))
    with pytest.raises(ValueError, match=r"num_steps is None, but n-mnist holds event streams .* from 1 up.$"):
        load("n-mnist", "train", root=tmp_path)
