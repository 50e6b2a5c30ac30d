"""Checkpoints of a run, by orbax: written beside the loop, complete or not there at all.

A checkpoint holds the whole `TrainState`, where the input stands, and the loop's own numbers. orbax
writes under another name and renames at the end, so a killed run leaves no half checkpoint that
could be picked. Old ones are removed after a newer one is complete.
"""

import errno
import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax

from ddpm_jax.training.state import TrainState

SHOWN = 200
"""Letters of a reason that are shown: tensorstore's may go on for pages."""
METADATA = 2**20
"""Bytes that a checkpoint may take beside its arrays."""


class Saved(NamedTuple):
    """What a checkpoint gives back.

    Attributes:
        state: of the run.
        extra: what was saved beside it, as JSON has it.
    """

    state: TrainState
    extra: dict[str, Any]


class Checkpoints:
    """The checkpoints in a folder, by step; a context manager that waits for the last one.

    Args:
        folder: is made if it is missing.
        keep_last: how many of the newest are kept, at least 1.
        keep_best: how many with the lowest held-out loss are kept beside them.
    """

    def __init__(self, folder: Path, *, keep_last: int = 2, keep_best: int = 0):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import (
            AnyPreservationPolicy,
            BestN,
            LatestN,
        )

        _quieten()
        self.folder = folder.resolve()
        policies: list[Any] = [LatestN(keep_last)]
        if keep_best:
            policies.append(
                BestN(
                    get_metric_fn=lambda metrics: metrics["loss"],
                    reverse=True,
                    n=keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._ocp = ocp
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_names=("state", "extra"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.wait()
        self._manager.close()

    def latest(self) -> int | None:
        """The newest complete checkpoint's step."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """The complete checkpoints' steps."""
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdigit())

    def save(
        self, state: TrainState, extra: Mapping[str, Any], *, held_out: float | None = None
    ) -> None:
        """Starts to write a checkpoint; the state may be donated as soon as this returns.

        Args:
            state: of the run; its step is the checkpoint's.
            extra: JSON values.
            held_out: the loss that keep_best goes by.

        Raises:
            OSError: this checkpoint, or the one before it, cannot be written.
        """
        step, args = int(state.step), self._ocp.args
        with _as_oserror(self):
            self._check_space(state)
            self._manager.save(
                step,
                args=args.Composite(
                    state=args.StandardSave(state), extra=args.JsonSave(dict(extra))
                ),
                metrics=None if held_out is None else {"loss": held_out},
                force=True,
            )

    def _check_space(self, state: TrainState) -> None:
        """A full disk is told before it is full: half a checkpoint would take the room of others'
        work, and the threads that write it each have their say.
        """
        self.finish()
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + METADATA
        if shutil.disk_usage(self.folder).free < size:
            raise OSError(errno.ENOSPC, f"it takes up to {size / 2**20:.0f} MiB")

    def wait(self) -> None:
        """Until everything is written. Raises OSError as `save`."""
        with _as_oserror(self):
            self.finish()

    def finish(self) -> None:
        """Until everything is written, or orbax raises what it will."""
        self._manager.wait_until_finished()

    def restore(self, like: TrainState, step: int | None = None) -> Saved:
        """A checkpoint, the newest unless a step is given.

        Args:
            like: a state with the shapes, dtypes and shardings that are wanted; abstract or not.
            step: of the checkpoint.

        Raises:
            ValueError: none is there, or it is of another model or optimiser.
        """
        step = self.latest() if step is None else step
        if step is None:
            raise ValueError(f"{self.folder} holds no checkpoint")
        args = self._ocp.args
        try:
            found = self._manager.restore(
                step,
                args=args.Composite(
                    state=args.StandardRestore(jax.tree.map(_abstract, like)),
                    extra=args.JsonRestore(),
                ),
            )
        except Exception as error:  # orbax and tensorstore raise many kinds
            reason = str(error).strip().partition("\n")[0][:SHOWN]
            earlier = max((one for one in self.steps() if one < step), default=None)
            way = "" if earlier is None else f"; without that folder {earlier} is resumed from"
            raise ValueError(
                f"{self.folder / str(step)} is damaged, or of a run with other settings: "
                f"{reason}{way}"
            ) from error
        return Saved(found["state"], dict(found["extra"]))


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


@cache
def _quieten() -> None:
    """For good, since threads speak up late; what goes wrong in them is raised too."""
    logging.getLogger("absl").addFilter(_not_orbax)
    logging.getLogger("asyncio").addFilter(_no_lost_write)
    sys.unraisablehook = _quiet(sys.unraisablehook)


def _quiet(before: Callable[[Any], object]) -> Callable[[Any], None]:
    """A hook for errors that nobody can catch, without those that follow from another: after a
    failed read or write, tensorstore's threads find nobody to tell, and when Python ends, nobody
    has waited for the other parts of the checkpoint.
    """

    def unraisable(what: Any) -> None:
        closed = str(what.exc_value) == "Event loop is closed"
        if not (closed or "async_serialize" in repr(what.object)):
            before(what)

    return unraisable


def _not_orbax(record: logging.LogRecord) -> bool:
    """Orbax logs what every save did, and every error at each of the threads that it goes through;
    errors are raised too, and told once.
    """
    return "orbax" not in Path(record.pathname).parts


def _no_lost_write(record: logging.LogRecord) -> bool:
    """Of the writes that a full disk fails, orbax awaits one; asyncio complains of each other."""
    return "orbax" not in record.getMessage()


class _as_oserror:
    """Turns whatever orbax and tensorstore raise on writing into one sentence."""

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or not isinstance(error, Exception):
            return
        folder = self.checkpoints.folder
        with suppress(Exception):  # an earlier one that is under way may be complete soon
            self.checkpoints.finish()
        free = shutil.disk_usage(folder).free / 2**20 if folder.exists() else 0
        reason = str(error).strip().partition("\n")[0]
        if "No space left" in reason:  # among the names of a dozen of tensorstore's files
            reason = "no space is left"
        steps = self.checkpoints.steps()
        kept = f"kept: {', '.join(map(str, steps))}" if steps else "none is there yet"
        raise OSError(
            f"a checkpoint cannot be written to {folder} ({free:.0f} MiB free): {reason}; "
            f"checkpoints {kept}"
        ) from error
