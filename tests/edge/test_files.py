"""Whole or not at all."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from edge.errors import InputError
from edge.files import alone_with, check_could_write, replaced, sha256, whole_file, whole_folder, write_text
from edge.sinks.pending import PendingFile


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.txt"
    write_text(path, "ü")
    assert path.read_bytes() == "ü".encode()
    assert [p.name for p in path.parent.iterdir()] == ["out.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is flushed to the disk, and `renamed` when something gets its name."""
    found: list[str] = []
    sync = os.fsync

    def synced(handle: int) -> None:
        found.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        sync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    for way in (os.rename, os.replace):
        monkeypatch.setattr(
            os, way.__name__, lambda *names, way=way: (found.append("renamed"), way(*names))[1]
        )
    return found


def test_what_gets_its_name_is_on_the_disk_before_and_the_name_afterwards(
    tmp_path: Path, steps: list[str]
) -> None:
    with whole_file(tmp_path / "out.txt") as file:
        file.write_text("whole")
    assert steps == [file.name, "renamed", tmp_path.name]
    steps.clear()
    with whole_folder(tmp_path / "bundle") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "model").touch()
    assert steps == ["model", "renamed", tmp_path.name]
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o777 & ~_umask()


def test_a_file_is_held_before_its_folder_is_there_and_one_of_its_name_elsewhere_is_another(
    tmp_path: Path,
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    with alone_with(tmp_path / "here" / "a"), alone_with(tmp_path / "there" / "a"):
        pass
    path = tmp_path / "new" / "outbox.sqlite"
    with alone_with(path):
        path.parent.mkdir(exist_ok=True)
        with pytest.raises(InputError, match="in use by another Sightline"), alone_with(path):
            pass


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]


def test_the_temporary_keeps_the_suffix_that_writers_go_by(tmp_path: Path) -> None:
    with whole_file(tmp_path / "clip.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == tmp_path


def test_what_a_kill_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    for name in (".out.abcdefgh.txt", ".out.more.abcdefgh.txt"):
        (tmp_path / name).touch()
    with whole_file(tmp_path / "out.txt") as first:
        first.write_text("first")
        write_text(tmp_path / "out.txt", "second")
    assert {p.name for p in tmp_path.iterdir()} == {"out.txt", ".out.more.abcdefgh.txt"}
    assert (tmp_path / "out.txt").read_text() == "first"


def test_a_folder_that_a_kill_left_is_removed_and_one_that_another_writes_is_not(tmp_path: Path) -> None:
    for name in (".bundle.abcdefgh", ".bundle.other.abcdefgh"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.int8.tflite").touch()
    with whole_folder(tmp_path / "bundle") as first:
        (first / "first").touch()
        with whole_folder(tmp_path / "bundle") as second:
            (second / "second").touch()
    assert {p.name for p in tmp_path.iterdir()} == {"bundle", ".bundle.other.abcdefgh"}
    assert [p.name for p in (tmp_path / "bundle").iterdir()] == ["first"]


def test_a_folder_is_replaced_as_one(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    for content in ("first", "second"):
        with whole_folder(target) as folder:
            (folder / content).touch()
    assert [p.name for p in target.iterdir()] == ["second"]
    with pytest.raises(KeyboardInterrupt), whole_folder(target) as folder:  # noqa: PT012
        (folder / "half").touch()
        raise KeyboardInterrupt
    assert [p.name for p in target.iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_an_error_of_what_is_made_names_the_place_that_it_was_made_for(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error, whole_folder(tmp_path / "bundle") as folder:  # noqa: PT012
        (folder / "model.onnx").touch()
        raise InputError(f"{folder / 'model.onnx'} cannot be loaded.")
    assert str(error.value) == f"{tmp_path / 'bundle' / 'model.onnx'} cannot be loaded."


def test_a_folder_that_a_kill_took_away_is_back_before_the_next_is_written(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    for name in ("killed", "written"):
        replaced(target).mkdir()
        (replaced(target) / "former").touch()
        with suppress(KeyboardInterrupt), whole_folder(target) as folder:
            assert [p.name for p in target.iterdir()] == ["former"]
            (folder / "new").touch()
            if name == "killed":
                raise KeyboardInterrupt
        assert [p.name for p in target.iterdir()] == ["former" if name == "killed" else "new"]
        shutil.rmtree(target)
        assert list(tmp_path.iterdir()) == []


def test_many_writers_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(50):
            write_text(tmp_path / "a.txt", str(number))
            with whole_folder(tmp_path / "bundle") as folder:
                (folder / "a.txt").touch()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "bundle"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot write"), whole_file(tmp_path / "file" / "below"):
        pytest.fail("entered")


def test_a_full_disk_says_which_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    def write() -> None:
        with whole_file(tmp_path / "a.txt") as temporary:
            temporary.write_text("n")
            Path("/dev/full").write_text("ew")

    with pytest.raises(InputError, match=r"a\.txt cannot be written: No space left.*Free some space"):
        write()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_folder_that_is_gone_at_the_end_is_told(tmp_path: Path) -> None:
    for name, whole in (("clip.mp4", whole_file), ("bundle", whole_folder)):
        path = tmp_path / "out" / name
        with pytest.raises(InputError, match=f"{name} cannot be written: No such file"), whole(path):
            shutil.rmtree(path.parent)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    for refuses in (lambda path: write_text(path, ""), check_could_write):
        with pytest.raises(InputError, match="it is a folder"):
            refuses(tmp_path)


def test_a_link_stays_one_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "latency.json").symlink_to("disk/a.json")
    (tmp_path / "bundle").symlink_to("disk/bundle")
    for text in ("first", "second"):
        write_text(tmp_path / "latency.json", text)
        with whole_folder(tmp_path / "bundle") as folder:
            (folder / text).touch()
    assert (tmp_path / "disk" / "a.json").read_text() == "second"
    assert (tmp_path / "disk" / "bundle" / "second").exists()
    assert (tmp_path / "latency.json").is_symlink()
    assert (tmp_path / "bundle").is_symlink()
    assert sorted(p.name for p in (tmp_path / "disk").iterdir()) == ["a.json", "bundle"]


def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("pipe")
    for path in (pipe, link):
        for refuses in (lambda path: write_text(path, ""), check_could_write):
            with pytest.raises(InputError, match=f"Cannot write {path}: it is a device or a pipe"):
                refuses(path)
    assert pipe.is_fifo()


def test_what_a_kill_left_behind_a_link_is_removed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / ".a.12345678.mp4").touch()
    (tmp_path / "a.mp4").symlink_to("disk/a.mp4")
    PendingFile(tmp_path / "a.mp4").keep()
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["a.mp4"]


def test_whether_a_file_could_be_written_is_told_without_making_it(tmp_path: Path) -> None:
    check_could_write(tmp_path / "new" / "folder" / "a.txt")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is no folder"):
        check_could_write(tmp_path / "file" / "a.txt")


def test_sha256_of_the_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
