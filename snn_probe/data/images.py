"""Image files to uint8 arrays: which part of the picture is shown, and what is refused.

Sizes as in torchvision: for measuring Resize(256 / 224 size) and CenterCrop(size), for training RandomResizedCrop and
a mirror (Szegedy et al., CVPR 2015). Small pictures, up to SMALL pixels, are not cropped in the middle but shown whole.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from snn_probe.machine.files import shortened

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's
SMALL = 64  # pixels on a side up to which a set counts as one of small images, as CIFAR is
AREA = (0.08, 1.0)  # of a random crop, as a share of the picture
ASPECT = (3 / 4, 4 / 3)  # width by height, drawn evenly on the logarithm
ATTEMPTS = 10  # at a crop that fits into the picture

# The part of a picture to show: left, top, right, bottom in pixels of the file, and whether to mirror it.
View = tuple[tuple[float, float, float, float], bool]


def read_image(path: str, size: int, view: Callable[[int, int, int], View]) -> np.ndarray:
    """The part of a picture that `view(width, height, size)` says, as RGB uint8 (3, size, size).

    Raises ValueError, one sentence with the file's name, for what is no image, is cut off, or claims to be larger
    than Pillow's limit on pixels.
    """
    from PIL import Image

    with _one_sentence(path):
        with Image.open(path) as image:
            box, mirrored = view(*image.size, size)
            picture = image.convert("RGB")
        if picture.size != (size, size) or box != (0, 0, size, size):
            picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(picture).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[:, :, ::-1] if mirrored else pixels)


def picture_size(path: str) -> tuple[int, int]:
    """Width and height of a picture, from the beginning of its file. Raises ValueError as `read_image` does."""
    from PIL import Image

    with _one_sentence(path), Image.open(path) as image:
        return image.size


@contextmanager
def _one_sentence(path: str) -> Iterator[None]:
    """Whatever a damaged file makes Pillow raise, as a ValueError with the file's name."""
    from PIL import Image

    try:
        if not os.path.isfile(path):  # a pipe would never end
            raise OSError("no such file" if not os.path.exists(path) else "not an ordinary file")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(
            f"{path} says that it has more than {Image.MAX_IMAGE_PIXELS} pixels, which is refused; "
            "replace the file or delete it."
        ) from None
    except Exception as error:  # a damaged file makes the decoders raise anything
        raise ValueError(
            f"{path} cannot be read as an image ({shortened(str(error))}); replace the file or delete it."
        ) from None


def centre(width: int, height: int, size: int) -> View:
    """The square in the middle: all of the shorter side for small images, 224 / 256 of it for others."""
    shorter = min(width, height)
    side = shorter if size <= SMALL else shorter * 224 / 256
    left, top = (width - side) / 2, (height - side) / 2
    return (left, top, left + side, top + side), False


def random_crop(width: int, height: int, rng: np.random.RandomState) -> View:
    """A part of random area, shape and place, mirrored with p = 1/2; the largest allowed middle part if none fits."""
    mirrored = bool(rng.randint(2))
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(width - w + 1), rng.randint(height - h + 1)
            return (left, top, left + w, top + h), mirrored
    w, h = min(width, round(height * ASPECT[1])), min(height, round(width / ASPECT[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return (left, top, left + w, top + h), mirrored
