"""Files that are written whole or not at all.

Everything goes to a temporary sibling first, is flushed to the disk and then renamed, so that a
reader, a kill or a power cut sees either the old content or the new, never a part of it. What a kill has left of
an earlier temporary is removed by the next one who writes the same file or folder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edge.errors import DiskFailed, InputError, SightlineError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any error it is gone.

    The temporary name keeps the suffix, because writers choose their format by it. A link stays one: what it
    leads to is replaced.

    Raises:
        DiskFailed: the disk is full. InputError: it cannot be made or take its name, or a folder, a device or a
            pipe has that.
    """
    _check_may_be_replaced(path)
    path = behind_links(path)
    with errors_of(path, only=FULL), _temporary(path) as temporary:
        yield temporary
        with errors_of(path):
            _sync(temporary)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
            _sync_names(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path`.

    Two renames are needed where `path` exists already; should a kill fall between them, the old
    content stands beside it as `replaced(path)`, and the next write puts it back. A link stays one.

    Raises:
        InputError: it cannot be made, or the disk is full.
    """
    path = behind_links(path)
    with errors_of(path, only=FULL), _temporary(path, folder=True) as temporary, _named(temporary, path):
        with errors_of(path), _alone(path):
            pass  # what a kill left is back before the work
        yield temporary
        with errors_of(path):
            for written in temporary.rglob("*"):
                if written.is_file():
                    _sync(written)
            os.chmod(temporary, 0o777 & ~_umask())
            _replace_folder(temporary, path)
            _sync_names(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def replaced(path: Path) -> Path:
    """Where the folder that was at `path` stands while another takes its place."""
    return path.parent / f".{path.name}.old"


def behind_links(path: Path) -> Path:
    """The absolute path of what is written where `path` is a link, or leads through some."""
    return Path(os.path.realpath(path))


def check_writable(folder: Path, option: str) -> None:
    """Make the folder and try it: hours of work must not end at one that cannot be written.

    Raises:
        InputError: it cannot; `option` is what names another.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise refusal(error)(
            f"Cannot write to the folder {folder}: {error.strerror}. Choose another with {option}."
        ) from error


def check_could_write(path: Path) -> None:
    """That a file may be made there later; nothing is made now.

    Raises:
        InputError: it is no file, or it or the nearest folder above it that is there cannot be written.
    """
    _check_may_be_replaced(path)
    folder = next(parent for parent in behind_links(path).parents if os.path.exists(parent))
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise InputError(
            f"Cannot write {path}: this user may not. Choose another place, or run it as its user."
        )
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        reason = "may not be written to" if folder.is_dir() else "is no folder"
        raise InputError(f"Cannot write {path}: {folder} {reason}. Choose another place.")


def taken_twice(sources: Iterable[str], outputs: Iterable[tuple[str, Path]]) -> Iterator[tuple[str, str]]:
    """Outputs that would replace a source or one another: the name of each, and the message for it."""
    taken = {os.path.realpath(source): "source" for source in sources if os.path.isfile(source)}
    for name, path in outputs:
        other = taken.setdefault(os.path.realpath(path), name)
        if other != name:
            yield name, f"{path} is that of '{other}', too: give each a file of its own"


def check_options(source: str, **options: Path | None) -> None:
    """Before hours of work: that each output may be made, and takes nothing else's place.

    Raises:
        InputError: one is the source, or another's too, or as `check_could_write`.
    """
    outputs = [(f"--{option}", path) for option, path in options.items() if path]
    for option, message in taken_twice([source], outputs):
        raise InputError(f"{option}: {message}.")
    for _, path in outputs:
        check_could_write(path)


def refusal(error: OSError) -> type[InputError]:
    """What to raise where a file cannot be made: a read-only disk (EROFS) is a wrong place, for a unit has some."""
    return DiskFailed if error.errno in (*FULL, errno.EIO) else InputError


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """No other process is in it with the same file; one that ends in any way is out of it.

    A name of the kernel's, not a file: it is there on a full disk too, and nothing is left of it. Containers with a
    network of their own have names of their own.

    Raises:
        InputError: another is.
    """
    place = behind_links(path)
    key = str(place)
    with suppress(OSError):  # a disk that is full for now
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = os.stat(place.parent)  # two containers may have other files of one path
        key = f"{folder.st_dev} {folder.st_ino} {place.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as name:
        try:
            name.bind(f"\0sightline {hashlib.sha256(os.fsencode(key)).hexdigest()}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:  # others: a kernel that has no such names
                raise InputError(
                    f"{path} is in use by another Sightline that is running. Stop that one, or choose another file."
                ) from error
        yield


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def errors_of(path: Path, only: Sequence[int] = ()) -> Iterator[None]:
    """What fails here fails for `path`; of what may be about something else, `only` errors of these numbers."""
    try:
        yield
    except OSError as error:
        if only and error.errno not in only:
            raise
        hint = "Free some space" if error.errno in FULL else "Look at its folder"
        raise refusal(error)(
            f"{path} cannot be written: {error.strerror}. {hint} or choose another place."
        ) from error


def _temporary_sibling(path: Path, folder: bool = False) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            return Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        return Path(name)
    except OSError as error:
        raise refusal(error)(
            f"Cannot write {path}: {error.strerror}. Choose a folder that you may write to."
        ) from error


@contextmanager
def _named(temporary: Path, path: Path) -> Iterator[None]:
    """What goes wrong with what lies in a temporary folder is told of the place that it was made for."""
    try:
        yield
    except SightlineError as error:
        error.args = (str(error).replace(str(temporary), str(path)),)
        raise


@contextmanager
def _temporary(path: Path, folder: bool = False) -> Iterator[Path]:
    """A sibling of `path`, gone in the end; its lock tells what is being written from what a kill has left."""
    _remove_orphans(path, folder)
    temporary, handle = _locked_sibling(path, folder)
    try:
        yield temporary
    finally:
        os.close(handle)
        if folder:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):  # a disk that is read-only meanwhile: the next writer removes it
                temporary.unlink()


def _locked_sibling(path: Path, folder: bool) -> tuple[Path, int]:
    while True:
        temporary = _temporary_sibling(path, folder)
        with suppress(FileNotFoundError):  # another writer took it for an orphan before it was locked
            handle = os.open(temporary, os.O_RDONLY)
            _lock(handle, fcntl.LOCK_SH)
            if os.path.exists(temporary):
                return temporary, handle
            os.close(handle)


def _lock(handle: int, kind: int) -> None:
    with suppress(OSError):  # some network file systems have no locks; no orphan is removed there either
        fcntl.flock(handle, kind)


def _remove_orphans(path: Path, folder: bool = False) -> None:
    """Temporaries of `path` that nobody writes any more: nobody could use them or knows of them."""
    begin, end, remove = (path.name, "", shutil.rmtree) if folder else (path.stem, path.suffix, os.unlink)
    temporary = re.compile(rf"\.{re.escape(begin)}\.[a-z0-9_]{{8}}{re.escape(end)}")
    with suppress(OSError):
        for name in filter(temporary.fullmatch, os.listdir(path.parent)):
            orphan = path.parent / name
            with suppress(OSError), _opened(orphan) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(orphan)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The descriptor of a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _check_may_be_replaced(path: Path) -> None:
    """In the place of a device, such as /dev/null, a file would harm every other program."""
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "folder" if os.path.isdir(path) else "device or a pipe"
        raise InputError(f"Cannot write {path}: it is a {kind}. Choose the name of a file.")


def _replace_folder(new: Path, path: Path) -> None:
    with _alone(path) as old:
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            os.rename(path, old)
        os.rename(new, path)
        if old.exists():
            os.rename(old, new)  # a temporary again, which is removed


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """No other writer replaces the folder meanwhile; what a kill left where the old content stands is back."""
    old = replaced(path)
    with _opened(path.parent) as handle:
        _lock(handle, fcntl.LOCK_EX)
        if old.exists() and not path.exists():
            os.rename(old, path)
        yield old


def _sync(path: Path) -> None:
    with _opened(path) as handle:
        os.fsync(handle)


def _sync_names(folder: Path) -> None:
    with suppress(PermissionError):  # one may write to it and not read it; what was written is in its place
        _sync(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
