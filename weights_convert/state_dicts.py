"""Which state dicts are in what a training program saved, plain ones and moving averages (EMA).

    {name: tensor, ...}                      one state dict, maybe with other things beside
    {"model": ..., "ema": ..., "step": ...}  by the names below, one in another too
    [model, optimizer, epoch, step, ema]     a list (ermongroup/ddim): the first dict with tensors,
                                             and the average, the last
    {"ema_model.X": ..., "online_model.X": ...}    both in one (ema-pytorch)

`Checkpoint.chosen` says which of them is read.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from weights_convert.errors import listed
from weights_convert.unpickle import StridedTensor

StateDict: TypeAlias = dict[Any, Any]
T = TypeVar("T")

PLAIN = ("state_dict", "model", "model_state_dict", "params", "net")
AVERAGE = ("ema", "ema_state_dict", "model_ema", "ema_model", "params_ema")
_DEEPEST = 3
"""Dicts in dicts that are looked into."""

_ONLINE, _OF_EMA = "online_model.", "ema_model."
_COUNTERS = ("initted", "step", "num_updates", "decay")


class StateDicts(NamedTuple):
    """One of them, or both."""

    plain: StateDict | None
    average: StateDict | None


def state_dicts(found: Any) -> StateDicts:
    """The state dicts of an unpickled object: dicts with tensors among their values.

    Raises:
        ValueError: there is none, or it is not clear which of several is meant.
    """
    if type(found) is list:
        return _of_list(cast(list[Any], found))
    if type(found) is not dict:
        raise ValueError(f"contains a {type(found).__name__}, not a dict from names to tensors")
    return _of_dict(cast(StateDict, found), _DEEPEST)


def is_nested(found: Any) -> bool:
    """Whether an unpickled object has state dicts inside other dicts or lists."""
    try:
        return any(one is not found and _has_tensors(one) for one in state_dicts(found))
    except ValueError:
        return False


def _of_list(items: list[Any]) -> StateDicts:
    dicts = [item for item in items if _has_tensors(item)]
    if not dicts or len(dicts) > 2:
        raise ValueError(
            f"contains a list with {len(dicts)} dicts from names to tensors: 1, or 2 with a moving "
            "average (EMA), can be read"
        )
    return StateDicts(dicts[0], dicts[1] if len(dicts) == 2 else None)


def _of_dict(top: StateDict, depth: int) -> StateDicts:
    if _has_tensors(top) or depth == 0:
        return StateDicts(top, None)
    plain = _inside(top, PLAIN, depth)
    average = _inside(top, AVERAGE, depth)
    if plain is None and average is None:
        return StateDicts(top, None)  # an empty state dict, or one of strange things
    return StateDicts(plain, average)


def _inside(top: StateDict, names: tuple[str, ...], depth: int) -> StateDict | None:
    """The state dict under one of these names."""
    found = [name for name in names if isinstance(top.get(name), dict)]
    if len(found) > 1:
        raise ValueError(f"contains {listed(found)}, and it is not clear which is meant")
    if not found:
        return None
    inner = _of_dict(top[found[0]], depth - 1)
    return inner.plain if inner.average is None or names is PLAIN else inner.average


def _has_tensors(item: Any) -> bool:
    return isinstance(item, dict) and any(
        isinstance(value, StridedTensor) and isinstance(name, str)
        for name, value in cast(StateDict, item).items()
    )


def chosen_sets(
    plain: Mapping[str, T] | None, average: Mapping[str, T] | None
) -> tuple[Mapping[str, T], Mapping[str, T] | None, bool | None]:
    """The weights of a file, their average, and whether the first are an average themselves.

    Args:
        plain: the tensors of the plain state dict, if there is one.
        average: those of the averaged one, if there is one.
    """
    if average is not None:
        average = _split(average)[1] or average
    if plain is not None:
        plain, inner = _split(plain)
        average = inner if average is None else average
    if plain is not None:
        return plain, average, None if average is None else False
    assert average is not None
    return average, None, True


def _split(stored: Mapping[str, T]) -> tuple[Mapping[str, T] | None, Mapping[str, T] | None]:
    """The plain tensors and the average of one state dict, by their names."""
    names = [name for name in stored if name not in _COUNTERS]
    if not names or not all(name.startswith((_ONLINE, _OF_EMA)) for name in names):
        return stored, None
    online, of_ema = (
        {n.removeprefix(prefix): stored[n] for n in names if n.startswith(prefix)}
        for prefix in (_ONLINE, _OF_EMA)
    )
    return online or None, of_ema or None
