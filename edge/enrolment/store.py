"""The enrolled classes: one file a class, in a folder for each network; to delete the file is to forget.

    STORE/<bundle's name>/<label>.json

Only embeddings are kept, never the pictures. Folders are made for their owner alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.bundle import Manifest
from edge.enrolment.classifier import UNKNOWN, Examples, ExemplarClassifier, embedding_heads
from edge.errors import InputError
from edge.files import write_text

DEFAULT_STORE = Path("enrolled")
MOST_EXEMPLARS = 200


class EnrolledClass(BaseModel):
    """One file of a store.

    Attributes:
        people: whether these are faces of a person; they are used only where that is switched on.
        network: which network the embeddings are of; heads: which of its heads they are made of.
        accept: the share of the exemplars that the threshold lets through.
        exemplars: of length 1 each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    label: str
    people: bool
    network: str
    heads: tuple[str, ...]
    accept: float = Field(gt=0, le=1)
    exemplars: tuple[tuple[float, ...], ...] = Field(min_length=2, max_length=MOST_EXEMPLARS)

    def examples(self) -> Examples:
        """For the classifier."""
        return Examples(np.array(self.exemplars, np.float32), self.accept)


class Store:
    """The classes that were taught to one network."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Raises InputError where the bundle is no classifier."""
        self.folder = folder / manifest.name
        self._root = folder
        self.heads = embedding_heads(manifest)
        self._network = _network(manifest)

    def add(
        self, label: str, embeddings: NDArray[np.float32], people: bool = False, accept: float = 0.9
    ) -> EnrolledClass:
        """Teach a class, or more of one that is known; an embedding that is there already adds nothing.

        Args:
            embeddings: float32 (n, D), see `edge.enrolment.classifier.embedding`.

        Raises:
            InputError: fewer than two different pictures in all, too many, a label that cannot be, or
                one that is known as a thing and now as a person, or the other way round.
        """
        path = self._path(label)
        known = self._read(path) if path.exists() else None
        if known is not None and known.people != people:
            kind = "a person" if known.people else "a thing"
            raise InputError(f"'{label}' was enrolled as {kind}. Forget it first, or take another label.")
        rows = [tuple(row) for row in embeddings.tolist()]
        exemplars = tuple(dict.fromkeys([*(known.exemplars if known else ()), *rows]))
        _check_number(label, len(exemplars))
        made = EnrolledClass(
            label=label,
            people=people,
            network=self._network,
            heads=self.heads,
            accept=accept,
            exemplars=exemplars,
        )
        for folder in (self._root, self.folder):
            _make_private(folder)
        write_text(path, made.model_dump_json())
        path.chmod(0o600)
        return made

    def check(self, label: str) -> None:
        """Raises InputError for a label that cannot be."""
        self._path(label)

    def forget(self, label: str) -> None:
        """Delete a class of this network; raises InputError where there is none, or where it cannot be."""
        try:
            _remove(self._path(label))
        except FileNotFoundError:
            raise InputError(f"{self.folder} holds no class '{label}'.") from None

    def state(self) -> tuple[tuple[str, int, int], ...]:
        """What changes whenever a class is taught or forgotten: each file's name, time and size."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            with suppress(FileNotFoundError):  # forgotten meanwhile
                stat = path.stat()
                found.append((path.name, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def classes(self) -> list[EnrolledClass]:
        """All, by label; raises InputError for a file that cannot be used with this network."""
        return [self._read(path) for path in sorted(self.folder.glob("*.json"))]

    def classifier(self, people: bool = False, may_be_empty: bool = False) -> ExemplarClassifier:
        """Of the enrolled classes; people are left out unless they are switched on.

        Args:
            may_be_empty: without any class everything is unknown: the first one is still to be taught.

        Raises:
            InputError: there is none.
        """
        found = {one.label: one.examples() for one in self.classes() if people or not one.people}
        if not (found or may_be_empty):
            hint = " People are enrolled, but not switched on." if self.classes() else ""
            raise InputError(
                f"{self.folder} holds no class that could be used.{hint} Teach one with: "
                "sightline enroll BUNDLE LABEL IMAGE..."
            )
        return ExemplarClassifier(found)

    def _read(self, path: Path) -> EnrolledClass:
        found = read_class(path)
        if (found.network, found.heads) != (self._network, self.heads):
            raise InputError(
                f"{path} was taught to another network than this bundle's: the embeddings do not compare. "
                f"Forget it (sightline enroll --forget '{found.label}') and enrol it anew."
            )
        return found

    def _path(self, label: str) -> Path:
        name = quote(label, safe=" ")
        if not label.strip() or not label.isprintable() or len(name) > 200 or label == UNKNOWN:
            raise InputError(
                f"'{label}' cannot be a label, which names a file: expected at most 200 letters that can be printed "
                f"(each beyond ASCII counts as 6 or more), and not '{UNKNOWN}', which stands for what is like no class."
            )
        return self.folder / f"{name}.json"


def read_class(path: Path) -> EnrolledClass:
    """One file; raises InputError where it is not what `Store` writes."""
    try:
        return EnrolledClass.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise InputError(f"{path} is no enrolled class: {first}. Remove the file, and enrol anew.") from error


def all_files(store: Path) -> Iterator[Path]:
    """Of all networks in a store."""
    yield from sorted(store.glob("*/*.json"))


def forget(store: Path, label: str) -> list[Path]:
    """Delete a class from all networks of a store; the files that are gone.

    A file that cannot be read is found by its name: it must be possible to forget it, too.

    Raises:
        InputError: there is no class of this label, or it cannot be deleted.
    """
    name = f"{quote(label, safe=' ')}.json"
    found = [path for path in all_files(store) if path.name == name]
    for path in found:
        with suppress(FileNotFoundError):  # another did it meanwhile
            _remove(path)
    if not found:
        raise InputError(f"{store} holds no class '{label}'. `sightline enroll --list` shows what it holds.")
    return found


def _remove(path: Path) -> None:
    """Raises FileNotFoundError as it is, and InputError for a file that this user cannot delete."""
    try:
        path.unlink()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(
            f"{path} cannot be deleted: {error.strerror}. It takes a folder that may be written to: run it as its user."
        ) from error


def _check_number(label: str, count: int) -> None:
    if count < 2:
        raise InputError(
            f"'{label}' needs at least two different pictures: the threshold for \"none of these\" comes from "
            "leaving each out in turn. Five or more are better."
        )
    if count > MOST_EXEMPLARS:
        raise InputError(
            f"'{label}' would have {count} pictures; at most {MOST_EXEMPLARS} are kept. For so many, train a "
            "network: sightline train."
        )


def _network(manifest: Manifest) -> str:
    """The trained network's hash, which all precisions share; that of the artefact where it is not known."""
    if manifest.calibration is not None:
        return manifest.calibration.model_sha256
    return manifest.artefacts[0].sha256


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot make {folder}: {error.strerror}. Choose a --store where you may write."
        ) from error
