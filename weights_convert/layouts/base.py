"""What a layout of unconditional checkpoints is: marks among the names of its tensors, and a
function from its tensors to those of a `UNet2DModel`.

    marks      regular expressions; a file is in the layout if each of them matches a name
    read       tensors and settings -> config, tensors and scheduler in diffusers' form
    settings   what it takes of `Settings`, which no name and no shape tells

A layout that `UNet2DModel` cannot express has a `refusal` in place of `read`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from weights_convert.errors import listed
from weights_convert.ldm_configs import Config
from weights_convert.tensors import Stored

Tensors: TypeAlias = Mapping[str, Stored]
HeadOrder: TypeAlias = Literal["legacy", "new"]
BetaSchedule: TypeAlias = Literal["linear", "squaredcos_cap_v2"]
VarianceType: TypeAlias = Literal["fixed_small", "fixed_large"]
PredictionType: TypeAlias = Literal["epsilon", "sample", "v_prediction"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What neither the names nor the shapes of a checkpoint tell; None: not stated.

    Attributes:
        sample_size: width and height of the images in pixels.
        num_heads: heads of every attention.
        num_head_channels: channels of one head, in place of `num_heads`.
        head_order: "new": queries, keys and values of all heads follow each other; "legacy": those
            of each head do.
        num_train_timesteps: timesteps of the training, or of a consistency model its levels.
        beta_schedule: the noise schedule. "linear" is that of 1000 steps, scaled to their number.
        variance_type: of the sampling, for networks that do not learn it.
        rescale_timesteps: whether the network was told its timesteps as parts of 1000.

    Raises:
        ValueError: a value is not accepted; all faults are listed.
    """

    sample_size: int | None = None
    num_heads: int | None = None
    num_head_channels: int | None = None
    head_order: HeadOrder | None = None
    num_train_timesteps: int | None = None
    beta_schedule: BetaSchedule | None = None
    variance_type: VarianceType | None = None
    rescale_timesteps: bool | None = None

    def __post_init__(self) -> None:
        counts = ("sample_size", "num_heads", "num_head_channels", "num_train_timesteps")
        faults = [
            f"{name} must be a whole number of at least 1, got {value!r}"
            for name in counts
            if (value := getattr(self, name)) is not None and (type(value) is not int or value < 1)
        ]
        for name, accepted in _CHOICES.items():
            if (value := getattr(self, name)) is not None and value not in accepted:
                faults.append(f"{name} must be one of {listed(accepted)}, got {value!r}")
        if self.num_heads is not None and self.num_head_channels is not None:
            faults.append("num_heads and num_head_channels say the same in two ways: state one")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def given(self) -> dict[str, Any]:
        """The settings that are stated, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


_CHOICES: dict[str, tuple[str, ...]] = {
    "head_order": get_args(HeadOrder),
    "beta_schedule": get_args(BetaSchedule),
    "variance_type": get_args(VarianceType),
}


class Network(NamedTuple):
    """What a layout makes of a checkpoint, in diffusers' form."""

    tensors: dict[str, Stored]
    config: Config
    scheduler: Config


@dataclass(frozen=True, kw_only=True)
class UNetLayout:
    """A layout of unconditional checkpoints."""

    name: str
    """For `layout=` and `--layout`."""
    title: str
    """What such files are, for messages."""
    marks: tuple[str, ...]
    """Regular expressions, each of which matches the whole name of some tensor."""
    settings: frozenset[str] = frozenset()
    """The names of the settings that it takes."""
    read: Callable[[Tensors, Settings], Network] | None = None
    """Raises ValueError, with all faults, for tensors that are not such a network, and for settings
    that are missing."""
    refusal: str = ""
    """Why such files are not read."""
    possible: Callable[[Tensors], bool] = lambda tensors: True
    """Whether the shapes can be those of this layout, where its marks are those of another one."""

    def matches(self, tensors: Tensors) -> bool:
        """Whether a checkpoint with these tensors may be in this layout."""
        marked = all(any(re.fullmatch(mark, name) for name in tensors) for mark in self.marks)
        return marked and self.possible(tensors)

    def network(self, tensors: Tensors, settings: Settings) -> Network:
        """`read`, after the settings are checked by name.

        Raises:
            ValueError: as `read`; a setting is not one of this layout; or it is not read at all.
        """
        if self.read is None:
            raise ValueError(f"is {self.title}, which is not read: {self.refusal}")
        foreign = sorted(settings.given.keys() - self.settings)
        if foreign:
            raise ValueError(
                f"is {self.title}, whose settings are {listed(sorted(self.settings))}: "
                f"{listed(foreign)} given"
            )
        try:
            return self.read(tensors, settings)
        except ValueError as error:
            raise ValueError(f"is {self.title}, but {error}") from None

    def faults(self, tensors: Tensors) -> str:
        """What `network` says without any setting; empty if nothing is wrong or missing."""
        try:
            self.network(tensors, Settings())
        except ValueError as error:
            return f"it {error}"
        return ""


def raise_if(faults: Iterable[str]) -> None:
    """One ValueError for all faults."""
    if found := list(faults):
        raise ValueError(listed(found, "; "))


def needed(settings: Settings, wanted: Mapping[str, str]) -> list[str]:
    """The fault of the settings that are not stated; none if all are.

    Args:
        settings: what is stated.
        wanted: the names of settings, and in words what each decides.
    """
    missing = [f"{n} ({why})" for n, why in wanted.items() if getattr(settings, n) is None]
    if not missing:
        return []
    return [f"its tensors do not tell these settings, which must be stated: {listed(missing)}"]


def linear(tensor: Stored) -> Stored:
    """The weight of a convolution of kernel 1 as that of a linear layer; others as they are."""
    shape = tensor.shape[:2]
    if len(tensor.shape) < 3 or set(tensor.shape[2:]) != {1}:
        return tensor
    return tensor.mapped(shape, lambda array: array.reshape(shape))
