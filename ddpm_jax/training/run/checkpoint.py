"""Checkpoints of a run, by orbax: written while the loop goes on, complete or not there at all.

A checkpoint holds the whole `TrainState`, where the input stands, and the loop's own numbers. orbax
writes under another name and renames at the end, so a killed run leaves no half checkpoint that
could be picked. Old ones are removed after a newer one is complete.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ddpm_jax.hub.files import first_line
from ddpm_jax.training.state import TrainState

SHOWN = 200
"""Letters of a reason that are shown: tensorstore's may go on for pages."""


class Saved(NamedTuple):
    """What a checkpoint gives back.

    Attributes:
        state: of the run.
        extra: what was saved with it, as JSON has it.
    """

    state: TrainState
    extra: dict[str, Any]


class Checkpoints:
    """The checkpoints in a folder, by step; a context manager that waits for the last one.

    Args:
        folder: is made if it is missing.
        keep_last: how many of the newest are kept, at least 1.
        keep_best: how many with the lowest held-out loss are kept in addition.
    """

    def __init__(self, folder: Path, *, keep_last: int = 2, keep_best: int = 0):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

        self.folder = folder.resolve()
        best = BestN(
            get_metric_fn=lambda metrics: metrics["loss"],
            reverse=True,
            n=keep_best,
            keep_checkpoints_without_metrics=False,
        )
        policies = [LatestN(keep_last), *([best] if keep_best else [])]
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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        with suppress(Exception):  # it raises again what was raised before
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
        args = self._ocp.args
        with self._explained():
            # Looked at first, as half a checkpoint helps nobody: for each file that meets a full
            # disk, orbax's threads print their own errors, thousands of lines in all.
            self._manager.wait_until_finished()
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            if shutil.disk_usage(self.folder).free < size:
                raise OSError(f"no space is left, it takes {size / 2**20:.0f} MiB")
            self._manager.save(
                int(state.step),
                args=args.Composite(
                    state=args.StandardSave(state), extra=args.JsonSave(dict(extra))
                ),
                metrics=None if held_out is None else {"loss": held_out},
                force=True,
            )

    def wait(self) -> None:
        """Until everything is written. Raises OSError as `save`."""
        with self._explained():
            self._manager.wait_until_finished()

    def restore(self, like: TrainState, step: int | None = None) -> Saved:
        """A checkpoint, the newest unless a step is given.

        Args:
            like: a state of the shapes, dtypes and shardings to restore; abstract or not.
            step: of the checkpoint.

        Raises:
            ValueError: there is none, or it is damaged, or of another model or optimiser.
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
            earlier = max((one for one in self.steps() if one < step), default=None)
            hint = "" if earlier is None else f"; without that folder {earlier} is resumed from"
            raise ValueError(
                f"{self.folder / str(step)} is damaged, or of a run with other settings: "
                f"{_reason(error)}{hint}"
            ) from error
        return Saved(found["state"], dict(found["extra"]))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Makes one OSError of whatever orbax and tensorstore raise on writing."""
        try:
            yield
        except Exception as error:
            free, steps = shutil.disk_usage(self.folder).free / 2**20, self.steps()
            kept = f"kept: {', '.join(map(str, steps))}" if steps else "none is there yet"
            raise OSError(
                f"a checkpoint cannot be written to {self.folder} ({free:.0f} MiB free): "
                f"{_reason(error)}; checkpoints {kept}"
            ) from error


def _reason(error: Exception) -> str:
    if "No space left" in str(error):  # among the names of a dozen of tensorstore's files
        return "no space is left"
    return first_line(error)[:SHOWN]


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))
