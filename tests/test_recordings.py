"""Event data sets that are missing or incomplete, what is found of them, and downloading."""

import dataclasses
import hashlib
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from event_data import GET, MAKERS, cifar10_dvs, dvs128_gesture, n_caltech101, n_mnist, refused, write

from snn_probe.data.neuromorphic import SETS, found, read


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """One folder per data set with its published files, only to be read (frames may be kept there)."""
    folders = {name: tmp_path_factory.mktemp(name) for name in MAKERS}
    for name, make in MAKERS.items():
        make(folders[name])
    return folders


# --- missing files ---


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize(
    "name, expected",
    [
        ("n-caltech101", "n-caltech101/BACKGROUND_Google/*.bin"),
        ("dvs128-gesture", "dvs128-gesture/*.aedat"),
        ("n-mnist", "n-mnist/Train/0/*.bin"),
    ],
)
def test_a_missing_set_is_named_with_its_page(name, expected, download, tmp_path):
    said = f"{name} is not below {tmp_path}: expected, for example, {tmp_path}/{expected}; {GET[name]} and unpack in "
    refused(name, tmp_path, said + f"{tmp_path}/{name}.", download=download)
    assert found(name, tmp_path)["problem"].startswith(f"{name} is not below")


def test_a_missing_set_that_can_be_downloaded_says_so(tmp_path):
    said = (
        f"cifar10-dvs is not below {tmp_path}: expected, for example, {tmp_path}/cifar10-dvs/airplane/*.aedat; "
        f"{GET['cifar10-dvs']} and unpack in {tmp_path}/cifar10-dvs, or give --download."
    )
    refused("cifar10-dvs", tmp_path, said)


@pytest.mark.parametrize(
    "name, archive, command",
    [
        ("n-mnist", "NMNIST/Train.zip", "unzip {0}/NMNIST/Train.zip -d {0}/NMNIST"),
        ("n-mnist", "Test.zip", "unzip {0}/Test.zip -d {0}"),
        ("cifar10-dvs", "CIFAR10DVS/download/cat.zip",
         "unzip {0}/CIFAR10DVS/download/cat.zip -d {0}/CIFAR10DVS/extract"),
        ("dvs128-gesture", "DvsGesture.tar.gz", "tar -xzf {0}/DvsGesture.tar.gz -C {0}"),
    ],
)  # fmt: skip
def test_an_archive_that_is_not_unpacked_is_named(name, archive, command, tmp_path):
    write(tmp_path / archive, b"PK")
    said = f"{name} is not unpacked: {tmp_path}/{archive} is there, but not what is in it; run "
    refused(name, tmp_path, said + command.format(tmp_path) + ".")


def again(name):
    return f"{GET[name]} and unpack again."


@pytest.mark.parametrize("gone", [7, 19])
def test_a_missing_number_of_cifar10_dvs_is_named(gone, tmp_path):
    cifar10_dvs(tmp_path)
    folder = tmp_path / "CIFAR10DVS/extract/cat"
    (folder / f"cifar10_cat_{gone}.aedat").unlink()
    lacks = f"1 recordings of the numbers 0 to 19, such as {gone}"
    refused("cifar10-dvs", tmp_path, f"cifar10-dvs is incomplete: {folder} lacks {lacks}; {again('cifar10-dvs')}")


def test_a_missing_number_of_n_mnist_is_named(tmp_path):
    n_mnist(tmp_path)
    (tmp_path / "NMNIST/Train/3/00019.bin").unlink()
    said = f"{tmp_path}/NMNIST/Train lacks 1 recordings of the numbers 1 to 40, such as 19"
    refused("n-mnist", tmp_path, f"n-mnist is incomplete: {said}; {again('n-mnist')}")


def test_a_missing_class_is_named(tmp_path):
    n_caltech101(tmp_path)
    for path in (tmp_path / "Caltech101/yin_yang").iterdir():
        path.unlink()
    said = f"n-caltech101 is incomplete: {tmp_path}/Caltech101/yin_yang has no .bin files; {again('n-caltech101')}"
    refused("n-caltech101", tmp_path, said)


@pytest.mark.parametrize(
    "gone, said",
    [
        ("user02_led.aedat", "{}/user02_led.aedat is missing, but trials_to_train.txt lists user02_led.aedat"),
        (
            "user02_led_labels.csv",
            "{}/user02_led_labels.csv is missing, but trials_to_train.txt lists user02_led.aedat",
        ),
        ("trials_to_test.txt", "{}/trials_to_test.txt is missing, the list of the files of test"),
    ],
)
def test_a_missing_file_of_gestures_is_named(gone, said, tmp_path):
    dvs128_gesture(tmp_path)
    (tmp_path / "DvsGesture" / gone).unlink()
    what = said.format(tmp_path / "DvsGesture")
    refused("dvs128-gesture", tmp_path, f"dvs128-gesture is incomplete: {what}; {again('dvs128-gesture')}")


def test_a_gesture_that_nobody_made_is_named(tmp_path):
    dvs128_gesture(tmp_path)
    table = tmp_path / "DvsGesture/user24_led_labels.csv"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if not line.startswith("3,")))
    what = f"no file that {tmp_path}/DvsGesture/trials_to_test.txt lists has gesture 3"
    refused("dvs128-gesture", tmp_path, f"dvs128-gesture is incomplete: {what}; {again('dvs128-gesture')}")


def test_a_conversion_that_spikingjelly_did_not_finish_is_named(tmp_path):
    n_mnist(tmp_path, "NMNIST/events_np", ".npz", ("train", "test"))
    marker = tmp_path / "NMNIST/events_np.building"
    marker.touch()
    said = (
        f"{tmp_path}/NMNIST/events_np is half made: SpikingJelly left {marker} when it was interrupted; remove both "
        "and let SpikingJelly convert the files again, or give the published files instead."
    )
    refused("n-mnist", tmp_path, said)


@pytest.mark.parametrize("row", ["12,1,2", "0,1,2", "1,2", "1,-4,2", "a,b,c", "1,2,99999999999999", "1,2,3,4"])
def test_a_corrupt_table_of_gestures_is_named(row, tmp_path):
    dvs128_gesture(tmp_path)
    path = tmp_path / "DvsGesture/user24_led_labels.csv"
    path.write_text(f"class,startTime_usec,endTime_usec\n1,10000,12000\n\n{row}\n")
    said = (
        f"{path}, line 4 is {row!r}, but a class from 1 to 11 and two times in microseconds are what there can be; "
        f"{GET['dvs128-gesture']} and unpack in {tmp_path}."
    )
    refused("dvs128-gesture", tmp_path, said, ValueError)


def test_a_list_of_trials_never_leads_out_of_its_folder(tmp_path):
    dvs128_gesture(tmp_path)
    (tmp_path / "DvsGesture/trials_to_test.txt").write_text("../../etc/passwd\n")
    what = f"{tmp_path}/DvsGesture/passwd is missing, but trials_to_test.txt lists passwd"
    refused("dvs128-gesture", tmp_path, f"dvs128-gesture is incomplete: {what}; {again('dvs128-gesture')}")


# --- what is there ---


def test_found_says_what_is_there(roots):
    report = found("n-mnist", roots["n-mnist"])
    home = roots["n-mnist"] / "NMNIST"
    size = sum(path.stat().st_size for part in ("Train", "Test") for path in (home / part).rglob("*.bin"))
    assert report["folder"] == str(home) and report["form"] == ".bin files"
    assert (report["recordings"], report["bytes"], report["published"]) == (80, size, 70000)
    assert report["problem"].startswith(
        f"{home} has 80 recordings, but 70000 were published; get Train.zip and Test.zip from"
    )


def test_found_is_content_with_a_complete_set(roots, monkeypatch):
    monkeypatch.setitem(SETS, "n-mnist", dataclasses.replace(SETS["n-mnist"], published=80))
    assert found("n-mnist", roots["n-mnist"])["problem"] is None


def test_found_reports_half_a_set(tmp_path):
    dvs128_gesture(tmp_path)
    (tmp_path / "DvsGesture/user02_led.aedat").unlink()
    report = found("dvs128-gesture", tmp_path)
    assert report["problem"].startswith("dvs128-gesture is incomplete") and report["form"] == "AEDAT 3.1 files"


def test_sets_are_as_described():
    from spikingjelly.datasets import cifar10_dvs as theirs

    assert SETS["cifar10-dvs"].classes == theirs.CIFAR10DVS_CLASS_NAMES
    sizes = {name: (s.sensor_size, s.frame_size, s.num_classes) for name, s in SETS.items()}
    assert sizes == {
        "cifar10-dvs": ((128, 128), (48, 48), 10),
        "n-caltech101": ((180, 240), (48, 48), 101),
        "dvs128-gesture": ((128, 128), (128, 128), 11),
        "n-mnist": ((34, 34), (34, 34), 10),
    }
    assert list(SETS["n-caltech101"].classes) == sorted(set(SETS["n-caltech101"].classes))
    for name, event_set in SETS.items():
        assert event_set.name == name and event_set.description and event_set.page.startswith("https://")


# --- download ---


@pytest.fixture
def server(tmp_path, monkeypatch):
    """SpikingJelly's list of archives, with addresses of a server on this machine; change an entry to break it."""
    from spikingjelly.datasets.cifar10_dvs import CIFAR10DVS

    folder = tmp_path / "server"
    cifar10_dvs(folder, "", each=2)
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        listed = []
        for name in SETS["cifar10-dvs"].classes:
            path = folder / f"{name}.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for file in sorted((folder / name).iterdir()):
                    archive.write(file, f"{name}/{file.name}")
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            listed.append((path.name, f"http://127.0.0.1:{serving.server_port}/{path.name}", digest))
        monkeypatch.setattr(CIFAR10DVS, "resource_url_md5", classmethod(lambda cls: listed))
        yield listed
        serving.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_download_fetches_a_missing_set_and_leaves_a_present_one(tmp_path, server, capfd):
    root = tmp_path / "data"
    frames, y = read("cifar10-dvs", "test", num_steps=2, root=root, download=True)
    assert frames.shape == (10, 2, 2, 48, 48) and y.tolist() == [*range(10)]
    server.clear()
    assert torch.equal(read("cifar10-dvs", "test", num_steps=2, root=root, download=True)[0], frames)
    assert capfd.readouterr().out == ""  # stdout is for paths


def test_nothing_is_downloaded_unasked(tmp_path, server):
    with pytest.raises(FileNotFoundError):
        read("cifar10-dvs", "test", num_steps=2, root=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_download_that_fails_is_one_sentence(tmp_path, server):
    server[0] = (*server[0][:2], "0" * 32)
    said = (
        f"airplane.zip of cifar10-dvs could not be downloaded from {server[0][1]} (File not found or corrupted.); try "
        f"again, or {GET['cifar10-dvs']} and unpack in {tmp_path}/data/cifar10-dvs."
    )
    refused("cifar10-dvs", tmp_path / "data", said, OSError, download=True)
