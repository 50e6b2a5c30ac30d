"""Torch layout to Flax and back: names, leaf names and axis orders.

A Flax tree mirrors torch's modules. An element of a module list keeps its dot ("resnets.0"), so
`".".join(path)` is torch's name except for the leaf. The leaf's name and rank decide the axes:

    torch                               Flax leaf    axes, torch -> Flax
    weight (O, I, H, W)   convolution   kernel       (H, W, I, O)
    weight (O, I)         linear        kernel       (I, O)
    weight (N, C)         embedding     embedding    unchanged
    weight (C,)           norm          scale        unchanged
    time_proj.weight (C,) fourier       weight       unchanged
    bias (C,)                           bias         unchanged
    running_mean (C,)     batch norm    running_mean unchanged; running_var too
    one of `BARE`         bare          its name     unchanged

Each rule has an inverse, so `to_torch(to_flax(s)) == s` bit for bit, in the stored dtype.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias, cast

import numpy as np

from weights_convert.errors import listed
from weights_convert.names import with_current_names, without_wrappers
from weights_convert.tensors import BFLOAT16, FLOAT8, Array, Shape, Stored, as_stored, stored_of

Path: TypeAlias = tuple[str, ...]
Params: TypeAlias = Mapping[str, Any]

FLOATS = (
    np.dtype(np.float32),
    np.dtype(np.float16),
    BFLOAT16,
    np.dtype(np.float64),
    *FLOAT8.values(),
)

BUFFERS = ("position_ids",)
"""Tensors that torch saves and the network computes: they are no parameters and are left out."""

BARE = frozenset(
    {
        "class_embedding", "cls_token", "concept_embeds", "concept_embeds_weights",
        "position_embeddings", "running_mean", "running_var", "special_care_embeds",
        "special_care_embeds_weights",
    }
)  # fmt: skip
"""Parameters that belong to a module of several, not to a layer of their own; and the statistics of
a batch norm, which are parameters of a network that is not trained."""

_TO_FLAX_AXES = {("kernel", 4): (2, 3, 1, 0), ("kernel", 2): (1, 0)}
_TO_TORCH_AXES = {("kernel", 4): (3, 2, 0, 1), ("kernel", 2): (1, 0)}


def to_flax(
    tensors: Mapping[str, Any],
    expected: Params | None = None,
    *,
    put: Callable[[Path, Array], Any] | None = None,
    rename: Callable[[str], str | None] | None = None,
) -> dict[str, Any]:
    """A nested dict of parameters from tensors under their torch names, current or old.

    Args:
        tensors: a `Checkpoint`, or any mapping from names to arrays. All checks run first. Then the
            tensors are read one at a time.
        expected: a nested dict whose leaves have a `.shape` in Flax's layout, as `jax.eval_shape`
            returns. None: names and shapes are not compared.
        put: called with each tensor's path and its array in Flax's layout. Its result becomes the
            leaf. None: the leaf is the NumPy array.
        rename: from a name in the file to the one that a network of `expected` has; None leaves
            a tensor out.

    Raises:
        ValueError: one error that lists every tensor that is missing, is unexpected, has a wrong
            shape, is not of a float dtype, or has a name or rank without a rule.
    """
    leaves, faults = _planned(tensors, rename)
    if expected is not None:
        faults |= _differences(leaves, dict(flat(expected)), faults)
    _raise_if(faults)
    params: dict[str, Any] = {}
    for path, tensor in leaves.items():
        array = tensor.read()
        _insert(params, path, array if put is None else put(path, array))
        del array  # before the next one is read
    return params


def to_torch(params: Params) -> dict[str, Array]:
    """The arrays of a params tree under their torch names, in torch's layout and in C order.

    Raises:
        ValueError: one error that lists every leaf without a rule, and leaves that get the same
            torch name.
    """
    return {name: tensor.read() for name, tensor in torch_tensors(flat(params)).items()}


def flax_leaves(tensors: Mapping[str, Any]) -> dict[Path, Stored]:
    """Every tensor under its Flax path and in Flax's layout, not yet read. Raises as `to_flax`."""
    leaves, faults = _planned(tensors)
    _raise_if(faults)
    return leaves


def _planned(
    tensors: Mapping[str, Any], rename: Callable[[str], str | None] | None = None
) -> tuple[dict[Path, Stored], dict[str, str]]:
    """The leaves of a mapping, and the faults of the tensors that cannot become leaves, by name."""
    leaves: dict[Path, Stored] = {}
    faults: dict[str, str] = {}
    stored = with_current_names(without_wrappers(stored_of(tensors)))
    if rename is not None:
        stored = {new: tensor for name, tensor in stored.items() if (new := rename(name))}
    for name, tensor in stored.items():
        *modules, leaf = components(name)
        if leaf in BUFFERS:
            continue
        rank = len(tensor.shape)
        kind = _flax_leaf(modules[-1] if modules else "", leaf, rank)
        if kind is None:
            faults[name] = f"no rule for {name} of shape {tensor.shape}"
        elif tensor.dtype not in FLOATS:
            faults[name] = f"{name} is {tensor.dtype}, not a float of 8, 16, 32 or 64 bits"
        else:
            leaves[*modules, kind] = _permuted(tensor, _TO_FLAX_AXES.get((kind, rank)))
    modules = {path[:length] for path in leaves for length in range(1, len(path))}
    for path in leaves.keys() & modules:
        faults[torch_name(path)] = f"{torch_name(path)} is a tensor and a module"
    return leaves, faults


def torch_tensors(leaves: Mapping[Path, Any]) -> dict[str, Stored]:
    """Every leaf under its torch name and in torch's layout, not yet read. Raises as
    `to_torch`.
    """
    tensors: dict[str, Stored] = {}
    faults: dict[str, str] = {}
    for path, value in leaves.items():
        tensor = as_stored(value)
        rank, kind, name, full = len(tensor.shape), path[-1], torch_name(path), ".".join(path)
        module, leaf = path[-2] if len(path) > 1 else "", name.rpartition(".")[2]
        if _flax_leaf(module, leaf, rank) != kind or components(full) != path:
            faults[full] = f"no rule for {full} of shape {tensor.shape}"
        elif tensor.dtype not in FLOATS:
            faults[full] = f"{full} is {tensor.dtype}, not a float of 8, 16, 32 or 64 bits"
        elif name in tensors:
            faults[full] = f"two leaves become {name}"
        else:
            tensors[name] = _permuted(tensor, _TO_TORCH_AXES.get((kind, rank)))
    _raise_if(faults)
    return tensors


def nested(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """The inverse of `flat`. A `Stored` leaf is read."""
    params: dict[str, Any] = {}
    for path, leaf in leaves.items():
        _insert(params, path, leaf.read() if isinstance(leaf, Stored) else leaf)
    return params


def flat(params: Params, parents: Path = ()) -> dict[Path, Any]:
    """The leaves of a nested dict by their paths. An empty module has no leaves."""
    leaves: dict[Path, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            leaves |= flat(cast(Params, value), (*parents, name))
        else:
            leaves[*parents, name] = value
    return leaves


def torch_name(path: Path) -> str:
    """The torch name of a Flax path. In torch every leaf except `bias` and those of `BARE` is named
    `weight`.

    >>> torch_name(("down_blocks.0", "attentions.1", "to_out.0", "kernel"))
    'down_blocks.0.attentions.1.to_out.0.weight'
    """
    leaf = "weight" if path[-1] in ("kernel", "scale", "embedding") else path[-1]
    return ".".join((*path[:-1], leaf))


def components(name: str) -> Path:
    """A dotted name, split at its dots, except at dots before a number.

    >>> components("down_blocks.0.attentions.1.to_out.0.kernel")
    ('down_blocks.0', 'attentions.1', 'to_out.0', 'kernel')
    """
    parts: list[str] = []
    for part in name.split("."):
        if parts and part.isdecimal():
            parts[-1] += f".{part}"
        else:
            parts.append(part)
    return tuple(parts)


def _flax_leaf(module: str, leaf: str, rank: int) -> str | None:
    """The Flax name of a torch leaf of a module, or None without a rule."""
    if leaf in BARE:
        return leaf
    if leaf == "bias":
        return "bias" if rank == 1 else None
    if leaf != "weight":
        return None
    time = module == "time_proj"  # Fourier frequencies, or a learned embedding of timesteps
    embedding = time or module.endswith("embedding")
    kinds = {
        1: "weight" if time else "scale",
        2: "embedding" if embedding else "kernel",
        4: "kernel",
    }
    return kinds.get(rank)


def _permuted(tensor: Stored, axes: tuple[int, ...] | None) -> Stored:
    """The tensor with permuted axes, in C order."""
    if axes is None:
        return tensor.mapped(tensor.shape, lambda array: np.asarray(array, order="C"))
    shape = tuple(tensor.shape[axis] for axis in axes)
    return tensor.mapped(shape, lambda array: np.asarray(array.transpose(axes), order="C"))


def _differences(
    leaves: Mapping[Path, Stored], expected: Mapping[Path, Any], known: Mapping[str, str]
) -> dict[str, str]:
    """Missing and unexpected tensors and wrong shapes, in torch's names and layout. Tensors in
    `known` already have a fault and are not reported as missing.
    """
    found = {torch_name(path): (path, _torch_shape(path, t.shape)) for path, t in leaves.items()}
    wanted = {torch_name(p): (p, _torch_shape(p, tuple(t.shape))) for p, t in expected.items()}
    if prefix := _prefix_of(found.keys(), wanted.keys()):
        return {"prefix": f"all names begin with {prefix!r}, those of this network do not"}
    groups: dict[str, list[str]] = {
        "missing": sorted(wanted.keys() - found.keys() - known.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "wrong shape": [],
        "read": [],
    }
    for name in sorted(wanted.keys() & found.keys()):
        (path, shape), (other, needed) = found[name], wanted[name]
        if shape != needed:
            groups["wrong shape"].append(f"{name} is {shape}, expected {needed}")
        elif path != other:
            groups["read"].append(f"{name} as {path[-1]}, expected {other[-1]}")
    return {what: f"{what}: {listed(names)}" for what, names in groups.items() if names}


def _prefix_of(found: Collection[str], wanted: Collection[str]) -> str | None:
    """What stands before every name that was found, if the names without it are those wanted."""
    some = min(wanted, default="")
    prefixes = {name.removesuffix(some) for name in found if name.endswith(f".{some}")}
    return next((p for p in prefixes if {p + name for name in wanted} == set(found)), None)


def _torch_shape(path: Path, shape: Shape) -> Shape:
    """A Flax leaf's shape in torch's layout, which is the layout of the checkpoint file."""
    axes = _TO_TORCH_AXES.get((path[-1], len(shape)), range(len(shape)))
    return tuple(shape[axis] for axis in axes)


def _insert(params: dict[str, Any], path: Path, leaf: Any) -> None:
    for name in path[:-1]:
        params = params.setdefault(name, {})
    params[path[-1]] = leaf


def _raise_if(faults: Mapping[str, str]) -> None:
    if faults:
        raise ValueError(f"the weights do not match: {listed(faults.values(), '; ')}")
