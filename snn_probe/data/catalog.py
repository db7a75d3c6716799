"""What a network must know of each data set before it sees any of it."""

from __future__ import annotations

from dataclasses import dataclass

from . import digits, events
from .event_sets import SETS as EVENT_SETS


@dataclass(frozen=True)
class DatasetInfo:
    """What a network must know of a data set before it sees any of it.

    `input_shape` is (C, H, W), for event streams the shape of one frame. `temporal` is True for event streams,
    whose inputs are (N, T, C, H, W), and False for static images, (N, C, H, W). `classes[k]` is the name of label k.
    Of a set whose classes are the folders on a disk, `num_classes` is 0 until `describe` has looked there, and so is
    the size of `image-folder`.
    """

    name: str
    input_shape: tuple[int, ...]
    num_classes: int
    temporal: bool
    classes: tuple[str, ...]
    description: str


EMBEDDED = ("digits", "event-digits")
FOLDERS = ("imagenet", "image-folder")  # of class folders, which say what the classes are
IMAGENET_SIZE = 224

_DIGITS = tuple(str(digit) for digit in range(digits.NUM_CLASSES))
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = tuple(
    """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
""".split()
)


def _images(name: str, size: int, classes: tuple[str, ...], description: str, channels: int = 3) -> DatasetInfo:
    return DatasetInfo(name, (channels, size, size), len(classes), False, classes, description)


def _events(name: str, size: tuple[int, int], classes: tuple[str, ...], description: str) -> DatasetInfo:
    return DatasetInfo(name, (2, *size), len(classes), True, classes, description)


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        _images("digits", 8, _DIGITS, "1797 handwritten digits, grey levels in [0, 1]", channels=1),
        _events(
            "event-digits", (events.SENSOR_SIZE, events.SENSOR_SIZE), _DIGITS,
            "the same digits seen by a simulated event camera in three saccades; counts of ON and OFF events",
        ),
        _images("cifar10", 32, _CIFAR10, "60,000 small photographs (Krizhevsky 2009)"),
        _images("cifar100", 32, _CIFAR100, "60,000 small photographs of 100 classes (Krizhevsky 2009)"),
        _images("imagenet", IMAGENET_SIZE, (), "1.28 million photographs, ILSVRC 2012; or some of its classes"),
        _images("image-folder", 0, (), "your own images in train/CLASS/ and test/CLASS/ or val/CLASS/"),
        *(_events(s.name, s.frame_size, s.classes, s.description) for s in EVENT_SETS.values()),
    )
}  # fmt: skip
