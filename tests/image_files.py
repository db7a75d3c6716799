"""Tiny data sets in the forms in which the real ones are published."""

import pickle
from pathlib import Path

import numpy as np
from PIL import Image


def write_batch(path: Path, images: np.ndarray, labels: list[int], *, key: str = "labels") -> None:
    """A batch of CIFAR: a pickle of protocol 2 with `data` (N, 3072) uint8, labels and file names."""
    content = {
        "batch_label": "a batch",
        key: labels,
        "data": images.reshape(len(images), -1),
        "filenames": [f"{number}.png" for number in range(len(images))],
    }
    if key == "fine_labels":
        content["coarse_labels"] = [label // 5 for label in labels]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_cifar10(root: Path, *, per_class: int = 4, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """Five training batches of `per_class` images of every class, and a test batch; all training images and labels."""
    rng = np.random.RandomState(seed)
    folder = root / "cifar-10-batches-py"
    training, known = [], []
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        labels = rng.permutation(np.repeat(np.arange(10), per_class)).tolist()
        images = rng.randint(0, 256, (len(labels), 3, 32, 32)).astype(np.uint8)
        write_batch(folder / name, images, labels)
        if name != "test_batch":
            training.append(images)
            known += labels
    return np.concatenate(training), known


def write_cifar100(root: Path) -> None:
    rng = np.random.RandomState(0)
    for name, per_class in (("train", 2), ("test", 1)):
        labels = [label for label in range(100) for _ in range(per_class)]
        images = rng.randint(0, 256, (len(labels), 3, 32, 32)).astype(np.uint8)
        write_batch(root / "cifar-100-python" / name, images, labels, key="fine_labels")


def write_images(
    folder: Path, classes: dict[str, int], *, size: tuple[int, int] = (32, 32), suffix: str = ".png", seed: int = 0
) -> None:
    """`folder`/CLASS/0.png ...: as many smooth random pictures of (width, height) `size` as `classes` says."""
    rng = np.random.RandomState(seed)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            coarse = Image.fromarray(rng.randint(0, 256, (6, 6, 3)).astype(np.uint8))
            coarse.resize(size, Image.Resampling.BICUBIC).save(folder / name / f"{number}{suffix}")
