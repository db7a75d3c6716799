"""What a configuration names: labels keep their meaning, whatever happens to the folders later."""

import pytest
from image_files import write_images

from snn_probe.checkpoint import load
from snn_probe.config import RunConfig
from snn_probe.system import load_split, resolved
from snn_probe.training import train

CONFIG = RunConfig(dataset="image-folder", image_size=8, epochs=1, num_steps=2, width=0.25)


@pytest.fixture
def fruit(tmp_path):
    for split in ("train", "test"):
        write_images(tmp_path / "data" / split, {"apple": 6, "pear": 6, "quince": 6}, size=(8, 8))
    return tmp_path / "data"


def test_a_run_records_the_classes_it_found(fruit, tmp_path):
    list(train(CONFIG, folder=tmp_path / "run", data_root=fruit))
    found = load(tmp_path / "run" / "checkpoints" / "last.pt").config
    assert found.classes == ("apple", "pear", "quince") and found == resolved(CONFIG, fruit)
    assert resolved(RunConfig()) == RunConfig()


def test_a_class_that_is_renamed_later_cannot_change_the_labels(fruit, tmp_path):
    list(train(CONFIG, folder=tmp_path / "run", data_root=fruit))
    config = load(tmp_path / "run" / "checkpoints" / "last.pt").config
    labels = load_split(config, "test", data_root=fruit).labels
    for split in ("train", "test"):
        write_images(fruit / split, {"aardvark": 6}, size=(8, 8))  # would be the first class
    assert load_split(config, "test", data_root=fruit).labels.tolist() == labels.tolist()
    for split in ("train", "test"):
        (fruit / split / "apple").rename(fruit / split / "zapple")
    with pytest.raises(ValueError, match="apple"):
        load_split(config, "test", data_root=fruit)
    with pytest.raises(ValueError, match="another configuration"):
        train(CONFIG, folder=tmp_path / "run", data_root=fruit, resume=True)
