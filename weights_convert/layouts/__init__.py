"""The layouts of unconditional checkpoints, one a file. A new one is its file and a line in
`LAYOUTS`.
"""

from collections.abc import Collection

from weights_convert.errors import listed
from weights_convert.layouts.base import Tensors, UNetLayout
from weights_convert.layouts.consistency import CONSISTENCY
from weights_convert.layouts.ddpm import DDPM
from weights_convert.layouts.guided import GUIDED
from weights_convert.layouts.lucidrains import LUCIDRAINS

LAYOUTS: tuple[UNetLayout, ...] = (DDPM, GUIDED, CONSISTENCY, LUCIDRAINS)
UNCONDITIONAL: tuple[str, ...] = tuple(layout.name for layout in LAYOUTS)
"""Their names."""
BY_NAME = {layout.name: layout for layout in LAYOUTS}


def detected(tensors: Tensors) -> list[UNetLayout]:
    """The layouts that a checkpoint with these tensors may be in."""
    return [layout for layout in LAYOUTS if layout.matches(tensors)]


def one_of(found: Collection[UNetLayout], stated: str | None) -> UNetLayout:
    """The layout of a file, from those that it may be in.

    Args:
        found: as `detected` returns them; not empty.
        stated: the name of one.

    Raises:
        ValueError: the file is in none of that name, or may be in several and none is stated.
    """
    by_name = {layout.name: layout for layout in found}
    what = " or ".join(f"{layout.title} ({layout.name})" for layout in found)
    if stated is not None:
        if stated not in by_name:
            raise ValueError(f"is {what}, not of the layout {stated!r}")
        return by_name[stated]
    if len(by_name) > 1:
        raise ValueError(
            f"is {what}: their names and shapes are the same; state the layout, one of "
            f"{listed(by_name)}"
        )
    return next(iter(found))
