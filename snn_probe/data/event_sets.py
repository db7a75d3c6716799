"""The event data sets: what they are, where they come from, and how their files lie on a disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import event_files


@dataclass(frozen=True)
class Layout:
    """One way in which a data set's recordings lie below its folder.

    `bases` are the folders in which they may begin, "" for the set's own. Below it lie the folders named in `parts`
    (train, test), if the set comes so divided, and below those one folder per class, named in `classes`, with files
    that end in `suffix` and that `reader` reads. `trials` means DVS128 Gesture's own way instead: files of many
    gestures each, with a list of them for each part and a table of gestures for each file.
    """

    description: str
    bases: tuple[str, ...]
    suffix: str
    reader: Callable[[Path], event_files.Events]
    classes: tuple[str, ...]
    parts: tuple[str, str] | None = None
    trials: bool = False


@dataclass(frozen=True)
class EventSet:
    """An event data set. `sensor_size` and `frame_size` (the default) are (rows, columns); `classes[k]` names label k.

    `folders` are the names under the data root that are looked for, in this order (and the root itself). `published` is
    the number of recordings that the set has when complete. `numbered` says whose file names count without a gap, each
    "class", or the whole "part", or nobody's (None): what is missing can then be named. `page` offers `archives`, which
    must be unpacked; `downloadable` says whether a program can do that.
    """

    name: str
    sensor_size: tuple[int, int]
    frame_size: tuple[int, int]
    classes: tuple[str, ...]
    published: int
    folders: tuple[str, ...]
    layouts: tuple[Layout, ...]
    numbered: str | None
    page: str
    archives: tuple[str, ...]
    description: str
    downloadable: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def advice(self) -> str:
        """How to get the files, as the end of a sentence."""
        first, last = self.archives[0], self.archives[-1]
        between = "" if first == last else f" and {last}" if len(self.archives) == 2 else f" to {last}"
        return f"get {first}{between} from {self.page}"


_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DIGITS = tuple("0123456789")
_GESTURES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counterclockwise",
    "left arm clockwise", "left arm counterclockwise", "arm roll", "air drums", "air guitar", "other gestures",
)  # fmt: skip
# As sorted by SpikingJelly, capitals first. "Faces" of Caltech101 is not part of N-Caltech101.
_CALTECH = tuple(
    """
BACKGROUND_Google Faces_easy Leopards Motorbikes accordion airplanes anchor ant barrel bass beaver binocular bonsai
brain brontosaurus buddha butterfly camera cannon car_side ceiling_fan cellphone chair chandelier cougar_body
cougar_face crab crayfish crocodile crocodile_head cup dalmatian dollar_bill dolphin dragonfly electric_guitar elephant
emu euphonium ewer ferry flamingo flamingo_head garfield gerenuk gramophone grand_piano hawksbill headphone hedgehog
helicopter ibis inline_skate joshua_tree kangaroo ketch lamp laptop llama lobster lotus mandolin mayfly menorah
metronome minaret nautilus octopus okapi pagoda panda pigeon pizza platypus pyramid revolver rhino rooster saxophone
schooner scissors scorpion sea_horse snoopy soccer_ball stapler starfish stegosaurus stop_sign strawberry sunflower
tick trilobite umbrella watch water_lilly wheelchair wild_cat windsor_chair wrench yin_yang
""".split()
)


def _npz(classes: tuple[str, ...], parts: tuple[str, str] | None = None) -> Layout:
    return Layout("SpikingJelly's events_np", ("events_np",), ".npz", event_files.read_npz, classes, parts)


_PARTS = ("train", "test")

SETS: dict[str, EventSet] = {
    event_set.name: event_set
    for event_set in (
        EventSet(
            "cifar10-dvs", (128, 128), (48, 48), _CIFAR, 10000,
            ("cifar10-dvs", "CIFAR10DVS", "CIFAR10-DVS", "cifar10dvs"),
            (Layout("AEDAT 2.0 files", ("extract", ""), ".aedat", event_files.read_aedat2, _CIFAR), _npz(_CIFAR)),
            "class",
            "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
            tuple(f"{name}.zip" for name in _CIFAR),
            "10,000 CIFAR-10 images moved before a DVS128 camera (Li et al. 2017)",
            downloadable=True,
        ),
        EventSet(
            "n-caltech101", (180, 240), (48, 48), _CALTECH, 8709,
            ("n-caltech101", "NCaltech101", "N-Caltech101", "ncaltech101"),
            (
                Layout(".bin files", ("extract/Caltech101", "Caltech101", ""), ".bin", event_files.read_bin, _CALTECH),
                _npz(_CALTECH),
            ),
            None,
            "https://www.garrickorchard.com/datasets/n-caltech101",
            ("Caltech101.zip",),
            "8709 Caltech101 images seen by an ATIS camera in three saccades (Orchard et al. 2015)",
        ),
        EventSet(
            "dvs128-gesture", (128, 128), (128, 128), _GESTURES, 1464,
            ("dvs128-gesture", "DVS128Gesture", "DvsGesture"),
            (
                Layout("AEDAT 3.1 files", ("extract/DvsGesture", "DvsGesture", ""), ".aedat", event_files.read_aedat3,
                       (), trials=True),
                _npz(tuple(str(label) for label in range(11)), _PARTS),
            ),
            None,
            "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794",
            ("DvsGesture.tar.gz",),
            "1464 gestures of 11 kinds before a DVS128 camera, 29 people (Amir et al. 2017)",
        ),
        EventSet(
            "n-mnist", (34, 34), (34, 34), _DIGITS, 70000,
            ("n-mnist", "NMNIST", "N-MNIST", "nmnist"),
            (
                Layout(".bin files", ("extract", ""), ".bin", event_files.read_bin, _DIGITS, ("Train", "Test")),
                _npz(_DIGITS, _PARTS),
            ),
            "part",
            "https://www.garrickorchard.com/datasets/n-mnist",
            ("Train.zip", "Test.zip"),
            "70,000 MNIST images seen by an ATIS camera in three saccades (Orchard et al. 2015)",
        ),
    )
}  # fmt: skip
