"""The same trials on a Ray cluster: this process alone keeps the study, the workers train.

Sightline must be installed on every node, and the data must lie there under the same path; they are compared by hash.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import InputError, MissingPackageError
from train.recipe import AnyRecipe
from train.search.run import Perform, Tell
from train.search.space import Space
from train.search.study import Study, Task, Trial

if TYPE_CHECKING:
    from train.search.objective import Objective

LOCAL = "local"
"""The address that starts a cluster on this machine, a worker a core."""

RESTARTS = 3
"""So often a worker that was lost is started again, elsewhere if need be, and its trial with it."""

THREADS = "TF_NUM_INTRAOP_THREADS"
"""TensorFlow would take every core for every worker."""


class _Worker:
    """Lives on a node and takes one trial after the other."""

    def __init__(self, recipe: AnyRecipe, source: str, hold_out: int | None) -> None:
        self._about = recipe, source, hold_out
        self._opened: Objective | None = None

    def data_sha256(self) -> str:
        """Of the images that this node trains on."""
        return self._objective().about.data.sha256

    def run(self, task: Task) -> Trial:
        """One trial; its checkpoint would be of no use to another node."""
        with tempfile.TemporaryDirectory() as folder:
            return self._objective()(task, Path(folder) / "checkpoint.keras")

    def _objective(self) -> Objective:
        # Not when the worker is made: Ray would hide an error there, and a restarted one is asked for a trial at once.
        if self._opened is None:
            from train.backend import import_keras

            import_keras()
            from train.search.objective import Objective

            self._opened = Objective(*self._about)
        return self._opened


def on_ray(address: str, recipe: AnyRecipe, source: str, hold_out: int | None, data_sha256: str) -> Perform:
    """Connects to the cluster at `address`, or starts one here, and gives what runs trials there, one a core.

    Raises:
        MissingPackageError: Ray is not installed.
        InputError: there is no cluster, or a node has other images.
    """
    ray = _connected(address)
    count = max(1, int(ray.cluster_resources().get("CPU", 1)))
    options = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS, "num_cpus": 1}
    kind = ray.remote(**options, runtime_env={"env_vars": {THREADS: "1"}})(_Worker)
    workers = [kind.remote(recipe, source, hold_out) for _ in range(count)]
    for found in _got(ray, [worker.data_sha256.remote() for worker in workers]):
        if found != data_sha256:
            raise InputError(
                f"A node of the Ray cluster has other images (SHA-256 {found[:12]}…, here {data_sha256[:12]}…). "
                "--data must name the same ones on every node."
            )
    return _Cluster(ray, workers).perform


class _Cluster:
    def __init__(self, ray: Any, workers: list[Any]) -> None:
        self._ray, self._idle = ray, workers
        self._running: dict[Any, tuple[Any, ExitStack]] = {}

    def perform(self, study: Study, tasks: Sequence[Task], space: Space, tell: Tell) -> None:
        """A `train.search.run.Perform`: every task under way is held, as any other process would."""
        for wait in (False, True):
            for task in tasks:
                held = ExitStack()
                if not held.enter_context(study.claimed(task.name, wait)):
                    held.close()
                    continue
                worker = self._idle.pop()
                self._running[worker.run.remote(task)] = worker, held
                if not self._idle:
                    self._collect(study, space, tell)
            while self._running:
                self._collect(study, space, tell)

    def _collect(self, study: Study, space: Space, tell: Tell) -> None:
        """Wait for the next trial to end, and record it."""
        (ended, *_), _ = self._ray.wait([*self._running])
        worker, held = self._running.pop(ended)
        with held:
            (trial,) = _got(self._ray, [ended])
            study.record(trial, space)
        tell(trial)
        self._idle.append(worker)


def _connected(address: str) -> Any:
    # Ray reports its use to its makers unless it is told not to; Sightline reports nothing.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError("ray", "ray", "`sightline search --ray`") from error
    options = {"include_dashboard": False} if address == LOCAL else {"address": address}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"No Ray cluster at {address}: {error}. `ray start --head` starts one; --ray local starts one here."
        ) from error
    return ray


def _got(ray: Any, references: list[Any]) -> list[Any]:
    """What workers answered; their mistakes as ours."""
    try:
        answers: list[Any] = ray.get(references)
    except ray.exceptions.RayTaskError as error:
        raise InputError(f"On a worker of the Ray cluster: {error.cause}") from error
    except ray.exceptions.RayError as error:
        raise InputError(
            f"A worker of the Ray cluster was lost: {error}. The same command goes on."
        ) from error
    return answers
