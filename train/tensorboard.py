"""Logs for TensorBoard: `sightline train --tensorboard DIR`, one scalar for each metric and epoch.

TensorFlow's own writer makes the files, so that the package tensorboard is needed only to look at them.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edge.errors import MissingPackageError

if TYPE_CHECKING:
    from train.fit import Metrics, Watcher


class Logged:
    """A `train.fit.Watcher` that passes on what it hears and logs every epoch; a context manager.

    A resumed training repeats the epoch in which it was broken off with the same values, so that the
    same step in two files of one folder draws one curve.
    """

    def __init__(self, folder: Path, watcher: Watcher) -> None:
        """Raises MissingPackageError where TensorFlow is not installed, as with Keras on JAX."""
        self._tf, self._watcher = _tensorflow(), watcher
        self._writer = self._tf.summary.create_file_writer(str(folder))

    def __enter__(self) -> Logged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def step_done(self, step: int, metrics: Metrics) -> None:
        self._watcher.step_done(step, metrics)

    def epoch_done(self, epoch: int, metrics: Metrics) -> None:
        self._watcher.epoch_done(epoch, metrics)
        with self._writer.as_default():
            for name, value in metrics.items():
                self._tf.summary.write(_tag(name), self._tf.constant(value), epoch, _scalar(self._tf, name))
        self._writer.flush()


def _tag(name: str) -> str:
    """TensorBoard groups what has the same word before the slash."""
    return f"validation/{name.removeprefix('validation_')}" if "validation" in name else f"train/{name}"


def _scalar(tf: Any, name: str) -> Any:
    """What `tf.summary.scalar` would say of a value; that function needs the package tensorboard."""
    about = tf.compat.v1.SummaryMetadata
    return about(
        display_name=_tag(name),
        plugin_data=about.PluginData(plugin_name="scalars"),
        data_class="DATA_CLASS_SCALAR",
    )


def _tensorflow() -> Any:
    try:
        import tensorflow
    except ImportError as error:
        raise MissingPackageError("tensorflow", "train", "--tensorboard") from error
    return tensorflow
