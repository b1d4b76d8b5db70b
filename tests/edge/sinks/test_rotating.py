"""A log that goes on for months: whole lines, bounded, continued after a kill, counted on a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage import INFO, animal, disk_of, file_size_limit, frame_at

from edge.errors import InputError
from edge.sinks.jsonl import JsonlSink
from edge.sinks.rotating import RotatingFile


def parts(path: Path) -> list[Path]:
    """Oldest first."""
    found = path.parent.glob(f"{path.name}*")
    return sorted(found, key=lambda part: -int(part.suffix[1:]) if part.suffix[1:].isdigit() else 0)


@given(st.lists(st.text("ab\né", max_size=30), max_size=60), st.integers(1, 60), st.integers(0, 3))
def test_parts_keep_their_size_and_hold_the_newest_lines(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], max_bytes: int, keep: int
) -> None:
    path, lines = tmp_path_factory.mktemp("log") / "log", [json.dumps({"": text}) for text in texts]
    log = RotatingFile(path, max_bytes, keep)
    for line in lines:
        log.write(line)
    log.close()
    found = parts(path)
    assert len(found) <= keep + 1
    held = [line for part in found for line in part.read_text().splitlines()]
    assert held == lines[len(lines) - len(held) :]
    for part in found:
        assert part.stat().st_size <= max_bytes or part.read_text().count("\n") == 1
        assert part.stat().st_size or not lines, "an empty part would take the place of an older one"
    assert bool(held) == bool(lines)
    assert log.lost == 0


objects = st.text("abc", max_size=9).map(lambda text: json.dumps({"": text}))


@given(st.lists(objects, max_size=9), st.text("abc", max_size=300_000 // 3).map("{".__add__))
def test_the_beginning_of_a_line_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], torn: str
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_text("".join(line + "\n" for line in lines) + torn)
    log = RotatingFile(path, 1 << 20, 1)
    log.write("{}")
    log.close()
    assert path.read_text().splitlines() == [*lines, "{}"]


@pytest.mark.parametrize(
    "torn", [200_000, 1 << 16, (1 << 16) - 1]
)  # and where a block that is looked at begins
def test_a_long_torn_line_is_found_over_many_blocks(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "log"
    path.write_text("{}\n{}\n" + "{" * torn)
    RotatingFile(path, 1 << 20, 1).close()
    assert path.read_text() == "{}\n{}\n"


def test_a_stream_with_max_bytes_appends_under_its_name_and_names_the_camera(tmp_path: Path) -> None:
    path = tmp_path / "out" / "results.jsonl"
    for run in range(2):
        sink = JsonlSink(path, max_bytes=1 << 20)
        sink.open(INFO)
        sink.open(INFO)
        sink.write(frame_at(run, "door"), animal(0.7))
        assert len(path.read_text().splitlines()) == run + 1, "it can be followed"
        sink.close()
        sink.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["camera"] for record in records] == ["door", "door"]


@pytest.mark.parametrize("content", [b"SQLite format 3\0", b"\0\0\0 ftyp", b"a letter"])
def test_a_file_of_something_else_is_refused_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "copy.sqlite"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"Cannot write .*copy\.sqlite: it is there and holds no JSON objects"
    ):
        RotatingFile(path, 1 << 20, 1)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("begun", "left", "kept"),
    [
        (b"", b"", []),
        (b"", b'1}\n{"n": 2}\n{"n": 3}\n{"n"', ["1}", '{"n": 2}', '{"n": 3}']),
        (b'{"n": 1}\n{"n', b'": 2}\n{"n": 3}\n', ['{"n": 1}', '{"n": 2}', '{"n": 3}']),
    ],
    ids=["all", "its beginning", "in its middle"],
)
def test_a_log_that_a_power_cut_filled_with_zeros_is_set_aside(
    tmp_path: Path, begun: bytes, left: bytes, kept: list[str]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(begun + bytes(4096) + left)
    log = RotatingFile(path, 1 << 20, 2)
    log.write('{"n": 4}')
    assert (log.lost, log.trouble, "zeros in the place of lines" in log.damage) == (0, "", True)
    log.close()
    held = [line.replace("\0", "") for part in parts(path) for line in part.read_text().splitlines()]
    assert held == [*kept, '{"n": 4}']
    assert path.read_text() == '{"n": 4}\n'


def test_a_log_of_zeros_alone_costs_no_older_part(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(4096))
    path.with_name("log.1").write_text("{}\n")
    RotatingFile(path, 1 << 20, 1).close()
    assert path.with_name("log.1").read_text() == "{}\n"


def test_what_logrotate_does_to_the_file_costs_no_line(tmp_path: Path) -> None:
    path, old = tmp_path / "log", tmp_path / "old"
    log = RotatingFile(path, 100, 3)
    log.write('{"n": 0}')
    os.rename(path, old)
    log.write('{"n": 1}')
    path.unlink()
    path.touch()  # as its option `create` does
    log.write('{"n": 2}')
    with file_size_limit(4):
        os.truncate(path, 0)  # `copytruncate`
        log.write('{"n": 3}')
    assert (log.lost, path.read_text()) == (1, ""), "no zeros in the place of what is gone"
    log.write('{"n": 4}')
    assert (old.read_text(), path.read_text()) == ('{"n": 0}\n', '{"n": 4}\n')


def test_after_a_kill_every_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = (
        "import sys; from pathlib import Path; from edge.sinks.rotating import RotatingFile\n"
        "log = RotatingFile(Path(sys.argv[1]), 100_000, 3)\n"
        "for n in range(10**9): log.write('{' + str(n) + ' ' + 'x' * 500); n or print('begun', flush=True)"
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        RotatingFile(path, 100_000, 3).close()
        for part in parts(path):
            assert all(line.endswith("x" * 500) for line in part.read_text().splitlines())


def test_what_a_full_disk_refuses_is_counted_and_the_stream_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    sink = JsonlSink(path, max_bytes=1 << 20)
    sink.open(INFO)
    sink.write(frame_at(0), animal(0.7))
    with file_size_limit(path.stat().st_size + 100):
        for index in range(50):
            sink.write(frame_at(index), animal(0.7))
        assert (sink.lost, "cannot be written" in sink.trouble) == (50, True)
    sink.write(frame_at(99), animal(0.7))
    assert sink.trouble == ""
    sink.close()
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 2


def test_a_log_on_a_disk_that_is_full(tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(256 << 10)
    log = RotatingFile(folder / "log", 64 << 10, 10)
    for number in range(2000):
        log.write(f"{{{number} " + "x" * 400)
    log.close()
    held = [line for part in parts(folder / "log") for line in part.read_text().splitlines()]
    assert log.lost > 0
    assert "No space left" in log.trouble
    assert len(held) + log.lost == 2000
    assert all(line.endswith("x" * 400) for line in held)
    assert disk_of(folder).f_bavail * disk_of(folder).f_bsize < 64 << 10


def test_a_file_that_cannot_be_written_is_found_out_at_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        JsonlSink(tmp_path / "file" / "log", max_bytes=1000).open(INFO)
    assert os.listdir(tmp_path) == ["file"]
