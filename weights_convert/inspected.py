"""What a weight file is: its layout, its tensors, whether they are a moving average (EMA), and what
a conversion needs to be told. Only names, shapes and dtypes are read.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weights_convert import layouts
from weights_convert.errors import listed
from weights_convert.files import open_file
from weights_convert.ldm_file import has_average
from weights_convert.names import without_wrappers
from weights_convert.single_file import STABLE_DIFFUSION, averaged_by_name, layout_names


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What a weight file is."""

    path: Path
    layouts: tuple[str, ...]
    """The layouts that it may be in, see `open_single_file`; none: diffusers' or an unknown one."""
    dtypes: Mapping[str, int]
    """How many tensors have which dtype."""
    has_average: bool
    """Whether it has a moving average (EMA) beside other weights."""
    is_average: bool | None
    """Whether its weights are a moving average themselves; None: it does not say it."""
    needs: str
    """What a conversion has to be told, or why there is none; empty: nothing."""

    def __str__(self) -> str:
        what = "diffusers' layout, or one that is not known"
        if self.layouts:
            what = f"layout {' or '.join(self.layouts)}"
        dtypes = " and ".join(sorted(self.dtypes))
        lines = [
            f"{self.path}: {what}",
            f"stored: {sum(self.dtypes.values())} tensors of {dtypes}",
            average_line(self.is_average, self.has_average),
        ]
        return "\n".join([*lines, *([f"to convert it: {self.needs}"] if self.needs else [])])


def average_line(is_average: bool | None, has_average: bool = False) -> str:
    """A sentence on whether weights are a moving average (EMA)."""
    if has_average:
        return "there are two sets of weights: plain ones, and their moving average (EMA)"
    if is_average is None:
        return "it is not known whether these are a moving average of weights in training (EMA)"
    does = "are" if is_average else "are not"
    return f"these {does} a moving average of weights in training (EMA)"


def inspect(path: str | Path) -> Inspected:
    """What a weight file is.

    Raises:
        ValueError: it is no weight file, or is damaged.
        FileNotFoundError: it does not exist.
    """
    path = Path(path)
    with open_file(path, training=True) as checkpoint:
        found = layout_names(checkpoint.stored)
        both = checkpoint.average is not None or has_average(checkpoint.stored)
        is_average = checkpoint.is_average
        needs = ""
        if found and found != (STABLE_DIFFUSION,):
            is_average = averaged_by_name(path, is_average)
            tensors = without_wrappers(checkpoint.stored)
            needs = "; ".join(layouts.BY_NAME[name].faults(tensors) for name in found)
            if len(found) > 1:
                needs = f"state the layout, one of {listed(found)}; {needs}"
        dtypes = Counter(str(dtype) for dtype in checkpoint.dtypes.values())
    return Inspected(
        path=path,
        layouts=found,
        dtypes=dtypes,
        has_average=both,
        is_average=None if both else is_average,
        needs=needs,
    )
