"""Torch layout to Flax and back: each rule by its definition, the bijection on random trees, all
faults at once."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch_files
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from weights.folders import bits, numbered, peak_memory, unread

from weights_convert import Checkpoint, open_weights, to_flax, to_torch
from weights_convert.rules import components, flat

Arrays = dict[str, np.ndarray[Any, Any]]


class Shaped:
    """A leaf of an expected tree."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape


# Definitions, index by index


def test_a_convolution_becomes_hwio() -> None:
    torch = numbered(5, 3, 2, 4)
    kernel = to_flax({"conv_in.weight": torch})["conv_in"]["kernel"]
    assert kernel.shape == (2, 4, 3, 5)
    for o, i, h, w in np.ndindex(torch.shape):
        assert kernel[h, w, i, o] == torch[o, i, h, w]


@pytest.mark.parametrize("module", ["time_embedding", "class_embedding"])
def test_a_linear_layer_becomes_in_by_out(module: str) -> None:
    """An embedding that is made of layers, too."""
    torch = numbered(5, 3)
    kernel = to_flax({f"{module}.linear_1.weight": torch})[module]["linear_1"]["kernel"]
    assert kernel.shape == (3, 5)
    for o, i in np.ndindex(torch.shape):
        assert kernel[i, o] == torch[o, i]


@pytest.mark.parametrize(
    ("name", "shape", "path"),
    [
        ("conv_norm_out.weight", (4,), ("conv_norm_out", "scale")),
        ("conv_norm_out.bias", (4,), ("conv_norm_out", "bias")),
        ("class_embedding.weight", (3, 4), ("class_embedding", "embedding")),
        ("time_proj.weight", (3, 4), ("time_proj", "embedding")),
        ("time_proj.weight", (4,), ("time_proj", "weight")),
        (
            "down_blocks.0.attentions.1.to_out.0.bias",
            (4,),
            ("down_blocks.0", "attentions.1", "to_out.0", "bias"),
        ),
        ("weight", (4,), ("scale",)),
        ("concept_embeds", (3, 4), ("concept_embeds",)),
        ("concept_embeds_weights", (3,), ("concept_embeds_weights",)),
        ("embeddings.class_embedding", (4,), ("embeddings", "class_embedding")),
        ("embeddings.cls_token", (1, 1, 4), ("embeddings", "cls_token")),
    ],
)
def test_leaves_with_unchanged_axes(
    name: str, shape: tuple[int, ...], path: tuple[str, ...]
) -> None:
    params = to_flax({name: numbered(*shape)})
    assert bits(flat(params)) == bits({path: numbered(*shape)})
    assert bits(to_torch(params)) == bits({name: numbered(*shape)})


# The bijection

DTYPES = [np.float32, np.float16, np.float64, ml_dtypes.bfloat16]
_module = st.sampled_from(
    ["conv1", "norm1", "to_q", "to_out.0", "resnets.1", "resnets.10", "down_blocks.0"]
    + ["linear_1", "class_embedding", "time_proj", "x.0.1", "attentions.0", "Straße_2"]
)
RANK_2 = ("time_proj", "class_embedding", "to_q", "to_out.0")
"""Of rank 4 the last two are an old layout of rank 2, which does not come back."""
_modules = st.lists(_module, min_size=1, max_size=4).map(".".join)
_shape = st.one_of(
    st.tuples(st.integers(0, 5)),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.tuples(*[st.integers(0, 4)] * 4),
)


@st.composite
def state_dicts(draw: st.DrawFn) -> Arrays:
    """Random trees of modules with a weight of any rank, and often a bias, with random dtypes and
    bits, including NaN."""
    state: Arrays = {}
    for module in draw(st.sets(_modules, min_size=1, max_size=6)):
        rank = 2 if module.endswith(RANK_2) else 4
        shapes = {"weight": draw(_shape.filter(lambda shape, rank=rank: len(shape) <= rank))}
        if draw(st.booleans()):
            shapes["bias"] = (draw(st.integers(0, 4)),)
        for leaf, shape in shapes.items():
            dtype = np.dtype(draw(st.sampled_from(DTYPES)))
            bits = draw(st.binary(min_size=8, max_size=8)) * int(np.prod(shape))
            data = bits[: int(np.prod(shape)) * dtype.itemsize]
            state[f"{module}.{leaf}"] = np.frombuffer(data, dtype).reshape(shape)
    return state


@settings(max_examples=100, deadline=None)
@given(state_dicts())
def test_there_and_back_bit_for_bit(state: Arrays) -> None:
    params = to_flax(state)
    assert bits(to_torch(params)) == bits(state)
    again = to_flax(to_torch(params))  # and in the other direction
    assert bits(flat(again)) == bits(flat(params))


@settings(max_examples=200, deadline=None)
@given(st.lists(_module | st.text("a1٣².", min_size=1, max_size=4), min_size=1, max_size=5))
def test_components_join_to_the_name(parts: list[str]) -> None:
    name = ".".join(parts)
    assert ".".join(components(name)) == name
    assert not any(part.isdecimal() for part in components(name)[1:])


# Faults

EXPECTED = {
    "conv_in": {"kernel": Shaped(3, 3, 1, 8), "bias": Shaped(8)},
    "norm": {"scale": Shaped(8), "bias": Shaped(8)},
    "linear": {"kernel": Shaped(4, 8), "bias": Shaped(8)},
}
GOOD: Arrays = {
    "conv_in.weight": numbered(8, 1, 3, 3),
    "conv_in.bias": numbered(8),
    "norm.weight": numbered(8),
    "norm.bias": numbered(8),
    "linear.weight": numbered(8, 4),
    "linear.bias": numbered(8),
}


def test_one_error_lists_every_fault_in_torch_terms() -> None:
    state = {
        "conv_in.weight": numbered(8, 1, 3, 5),
        "norm.weight": numbered(8, 1),
        "norm.bias": numbered(8),
        "linear.weight": numbered(8, 4).astype(np.int64),
        "linear.bias": numbered(8),
        "extra.weight": numbered(2),
        "other.bias": numbered(2),
        "num_batches_tracked": np.arange(3),
        "scalar.weight": np.float32(1),
    }
    with pytest.raises(ValueError) as raised:
        to_flax(state, EXPECTED)
    message = str(raised.value)
    assert "missing: conv_in.bias;" in message
    assert "unexpected: extra.weight, other.bias;" in message
    assert "conv_in.weight is (8, 1, 3, 5), expected (8, 1, 3, 3)" in message
    assert "norm.weight is (8, 1), expected (8,)" in message
    assert "linear.weight is int64" in message
    assert "no rule for num_batches_tracked of shape (3,)" in message
    assert "no rule for scalar.weight of shape ()" in message
    assert "\n" not in message


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_of_a_wrapped_module_are_read(prefix: str) -> None:
    with pytest.warns(UserWarning, match=f"begin with '{prefix}'.*it is removed"):
        params = to_flax({prefix + name: array for name, array in GOOD.items()}, EXPECTED)
    assert flat(params).keys() == flat(EXPECTED).keys()


def test_another_prefix_is_named() -> None:
    with pytest.raises(ValueError, match=r"all names begin with 'unet\.'.*do not$"):
        to_flax({f"unet.{name}": array for name, array in GOOD.items()}, EXPECTED)


def test_nothing_is_read_before_the_checks_have_passed() -> None:
    checkpoint = Checkpoint({"linear.weight": unread(9, 4)})
    assert "linear.weight" in checkpoint
    assert checkpoint.shapes == {"linear.weight": (9, 4)}
    with pytest.raises(ValueError, match="do not match"):
        to_flax(checkpoint, EXPECTED)


def test_a_matching_tree_is_accepted_and_put_gets_every_leaf() -> None:
    seen: list[tuple[str, ...]] = []

    def put(path: tuple[str, ...], array: np.ndarray[Any, Any]) -> tuple[int, ...]:
        seen.append(path)
        return array.shape

    params = to_flax(GOOD, EXPECTED, put=put)
    assert sorted(seen) == sorted(flat(EXPECTED))
    assert flat(params) == {path: leaf.shape for path, leaf in flat(EXPECTED).items()}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a.weight": numbered(2, 2, 2)}, "no rule for a.weight"),
        ({"a.bias": numbered(2, 2)}, "no rule for a.bias"),
        ({"a.weight_g": numbered(2)}, "no rule for a.weight_g"),
        ({"a.bias": np.ones(2, np.bool_)}, "a.bias is bool"),
        ({"a.bias": np.ones(2, ">f4")}, "a.bias is >f4"),
        ({"a.bias": np.ones(2, np.complex64)}, "a.bias is complex64"),
        ({"a.bias": numbered(2), "a.bias.bias": numbered(2)}, "a.bias is a tensor and a module"),
    ],
)
def test_state_dicts_without_a_rule(state: Arrays, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_flax(state)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a": {"kernel": numbered(2)}}, r"no rule for a\.kernel of shape \(2,\)"),
        ({"a": {"weight": numbered(2)}}, r"no rule for a\.weight"),
        ({"a": {"embedding": numbered(2, 2)}}, r"no rule for a\.embedding"),
        ({"time_proj": {"scale": numbered(2)}}, r"no rule for time_proj\.scale"),
        ({"a": {"gamma": numbered(2)}}, r"no rule for a\.gamma"),
        ({"a": {"bias": 1.5}}, r"no rule for a\.bias of shape \(\)"),
        ({"a": {"bias": np.arange(2)}}, "a.bias is int64"),
        ({"a.b": {"bias": numbered(2)}}, r"no rule for a\.b\.bias"),  # would come back as a, b
        ({"a": {"0": {"bias": numbered(2)}}}, r"no rule for a\.0\.bias"),  # and this as a.0
        ({"a": {"scale": numbered(2), "kernel": numbered(2, 2)}}, r"two leaves become a\.weight"),
    ],
)
def test_trees_without_an_inverse(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_torch(params)


# Memory

COUNT, WIDTH = 16, 512
TENSOR = WIDTH * WIDTH * 4  # bytes: 1 MiB
SLACK = TENSOR // 4  # headers, names and the interpreter


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_memory_is_the_result_and_one_tensor(tmp_path: Path, kind: str) -> None:
    state = {f"m.{i}.weight": numbered(WIDTH, WIDTH) for i in range(COUNT)}
    path = tmp_path / f"w.{kind}"
    save_file(state, path) if kind == "safetensors" else torch_files.save(path, state)
    del state
    with open_weights(path) as checkpoint:
        peak = peak_memory(lambda: to_flax(checkpoint))
    assert COUNT * TENSOR < peak <= (COUNT + 1) * TENSOR + SLACK


def test_buffers_are_left_out() -> None:
    """CLIP's checkpoints hold the numbers of the positions, as whole numbers."""
    state = {"e.position_embedding.weight": numbered(7, 8), "e.position_ids": np.arange(7)[None]}
    assert flat(to_flax(state)).keys() == {("e", "position_embedding", "embedding")}
