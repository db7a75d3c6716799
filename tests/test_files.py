"""A file is written whole or not at all."""

import errno
import os
import stat

import pytest

from snn_probe.machine import files
from snn_probe.machine.files import write_atomically


@pytest.mark.parametrize(
    ("content", "written"),
    [
        (b"\x00\r\n", b"\x00\r\n"),
        ("Gr\u00fc\u00dfe\n", "Gr\u00fc\u00dfe\n".encode()),
        (lambda file: file.write(b"ab") and file.write(b"cd"), b"abcd"),
        ("", b""),
    ],
)
def test_writes_bytes_text_and_what_a_function_writes(tmp_path, content, written):
    path = tmp_path / "new" / "folders" / "file"
    write_atomically(path, content)
    assert path.read_bytes() == written
    assert os.listdir(path.parent) == ["file"]


def test_replaces_an_existing_file_and_accepts_a_str_path(tmp_path):
    path = tmp_path / "file"
    path.write_text("old and longer")
    write_atomically(str(path), "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError("half way"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def fails(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)) as caught:
        write_atomically(path, fails)
    assert caught.value is error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_follows_a_link_and_keeps_it(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_file_and_folder_are_synced_before_and_after_the_rename(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append((kind, os.fstat(descriptor).st_size if kind == "file" else None))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", watched_fsync)
    monkeypatch.setattr(files.os, "replace", lambda *names: (steps.append(("rename", None)), replace(*names)))
    write_atomically(tmp_path / "file", "four")
    assert steps == [("file", 4), ("rename", None), ("folder", None)]


def test_a_name_of_the_greatest_length_works(tmp_path):
    write_atomically(tmp_path / ("x" * 255), "x")


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "way").write_text("old")
    for path in (tmp_path / "way" / "file", tmp_path / "way" / "folder" / "file"):
        with pytest.raises(
            OSError, match=r"^cannot write .*file: a file stands where the folder .* remove it or choose"
        ):
            write_atomically(path, "x")
    assert (tmp_path / "way").read_text() == "old"


@pytest.mark.parametrize("special", ["folder", os.devnull])
def test_never_replaces_what_is_not_a_file(tmp_path, special):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="not an ordinary file has this name; choose another file name"):
        write_atomically(tmp_path / special, "x")  # an absolute path replaces tmp_path
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOSPC, "the disk is full or its quota is used up; free some space or choose another folder"),
        (errno.EACCES, "is not writable; choose another folder or change its permissions"),
        (errno.EROFS, "is not writable; choose another folder or change its permissions"),
        (errno.EIO, "check the path or choose another folder"),
    ],
)
def test_a_full_or_forbidden_disk_is_one_sentence(tmp_path, monkeypatch, code, sentence):
    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(OSError, match=sentence) as caught:
        write_atomically(tmp_path / "file", "new")
    assert caught.value.errno == code
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'file'}: ")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not for folders")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", refuse_folders)
    write_atomically(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "x"


def test_other_contents_are_refused(tmp_path):
    with pytest.raises(TypeError, match="content is a dict; give bytes, a str, or a function"):
        write_atomically(tmp_path / "folder" / "file", {"a": 1})
    assert os.listdir(tmp_path) == []
