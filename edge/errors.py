"""Every error that Sightline raises on purpose, and the exit code it ends the command with.

    SightlineError               exit code 2
    ├── InputError               2  the call or the input was wrong
    │   ├── SourceError          2  a camera, video or image that is missing or cannot be decoded
    │   │   └── SourceRefused    2  a camera that will say no again: a wrong password, for example
    │   ├── DiskFailed           2  a disk that is full or does not answer: what runs for long tries again
    │   ├── BundleError          2  a bundle that is incomplete, unreadable or of a newer schema
    │   └── MissingPackageError  2  an optional package is absent; the message names the extra
    ├── CheckFailed              1  a check said no: accuracy, latency budget
    │   └── BundleChanged        1  a file of a bundle no longer has the hash in its manifest
    └── DeviceFailed             1  what had worked failed while it ran: starting again may help

A message says what was expected, what was found, the likely cause and the fix.
"""

from __future__ import annotations


class SightlineError(Exception):
    """Base of all errors a user may meet; the command prints its text, without a traceback."""

    exit_code = 2


class InputError(SightlineError):
    """The call or the input was wrong."""


class SourceError(InputError):
    """A source of frames is missing, empty or cannot be decoded."""


class SourceRefused(SourceError):
    """A camera said no and will again, for a wrong password for example; who asks often may be locked out."""


class DiskFailed(InputError):
    """A disk is full or does not answer now: the call may be right, and a sink that tries again begins so."""


class BundleError(InputError):
    """A bundle is incomplete, unreadable or written by a newer Sightline."""


class MissingPackageError(InputError):
    """A package is not installed; `extra` is the extra that brings it, empty for the base install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        how = (
            f"in Sightline's folder with: pip install '.[{extra}]'"
            if extra
            else f"with: pip install {package}"
        )
        super().__init__(f"{purpose} needs the package '{package}', which is not installed. Install it {how}")


class DeviceFailed(SightlineError):
    """What had worked failed while it ran, a GPU for example. Not 2: a supervisor starts it again."""

    exit_code = 1


class CheckFailed(SightlineError):
    """A check that was asked for did not pass."""

    exit_code = 1


class BundleChanged(CheckFailed):
    """A file of a bundle does not have the SHA-256 that its manifest states."""


def reason_of(error: Exception) -> str:
    """What an error of anybody's says, or its kind where it says nothing."""
    return str(error) or type(error).__name__
