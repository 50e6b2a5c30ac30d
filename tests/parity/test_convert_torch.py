"""The .bin reader and the torch layout, against live torch."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch")
safetensors_torch: Any = pytest.importorskip("safetensors.torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from weights_convert import open_weights, save_torch, to_flax, to_torch  # noqa: E402

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]


def bits(tensor: Any) -> bytes:
    """The bytes of a torch tensor in C order, for every dtype."""
    fresh = torch.empty(tuple(tensor.shape), dtype=tensor.dtype).copy_(tensor.detach())
    return fresh.view(-1).view(torch.uint8).numpy().tobytes()


def same(array: np.ndarray[Any, Any], tensor: Any) -> None:
    assert array.shape == tuple(tensor.shape)
    assert str(array.dtype) == str(tensor.dtype).removeprefix("torch.")
    assert array.tobytes() == (bits(tensor) if tensor.numel() else b"")


@st.composite
def views(draw: st.DrawFn) -> Any:
    """A view of a storage: any dtype, offset and shape, strides in any order, rows repeated too."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    strides = [draw(st.integers(0, 6)) for _ in shape]
    offset = draw(st.integers(0, 5))
    reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if n) + offset + 1
    whole = torch.arange(max(reach, 1) + draw(st.integers(0, 3))).to(dtype)
    return torch.as_strided(whole, shape, strides, offset)


@settings(max_examples=60, deadline=None)
@given(st.lists(views(), min_size=1, max_size=3), st.booleans())
def test_every_view_that_torch_saves(tmp_path_factory: Any, tensors: list[Any], old: bool) -> None:
    path = tmp_path_factory.mktemp("views") / "w.bin"
    state = {f"t{i}": tensor for i, tensor in enumerate(tensors)}
    state["again"] = tensors[0]
    torch.save(state, path, pickle_protocol=2 if old else 4)
    with open_weights(path) as checkpoint:
        assert set(checkpoint) == set(state)
        for name, tensor in state.items():
            same(checkpoint[name], tensor)


@settings(max_examples=60, deadline=None)
@given(st.lists(views(), min_size=1, max_size=3))
def test_every_view_in_the_format_from_before_the_zip(
    tmp_path_factory: Any, tensors: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("views") / "w.bin"
    state = {f"t{i}": tensor for i, tensor in enumerate(tensors)}
    state["again"] = tensors[0]
    torch.save(state, path, _use_new_zipfile_serialization=False)
    with open_weights(path) as checkpoint:
        assert set(checkpoint) == set(state)
        for name, tensor in state.items():
            same(checkpoint[name], tensor)


def test_a_module_in_the_format_from_before_the_zip(tmp_path: Path) -> None:
    """With parameters, buffers and the versions of its modules."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    state = {**module.state_dict(keep_vars=True)}
    for saved in (state, module.state_dict()):
        torch.save(saved, tmp_path / "w.bin", _use_new_zipfile_serialization=False)
        with open_weights(tmp_path / "w.bin") as checkpoint:
            assert set(checkpoint) == set(state)
            for name, tensor in state.items():
                same(checkpoint[name], tensor.detach())


def test_a_whole_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3), tmp_path / "w.bin")
    with pytest.raises(ValueError, match=r"uses torch\.nn\.modules\.linear\.Linear"):
        open_weights(tmp_path / "w.bin")


def test_a_training_checkpoint_lists_its_contents(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(2)}, "step": 3}, tmp_path / "w.bin")
    with pytest.raises(ValueError, match=r"'state_dict' \(dict\), 'step' \(int\)"):
        open_weights(tmp_path / "w.bin")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors_both_ways(tmp_path: Path, dtype: Any) -> None:
    state = {"a.weight": torch.randn(3, 2, 3, 3).to(dtype), "b.weight": torch.randn(5, 4).to(dtype)}
    safetensors_torch.save_file(state, tmp_path / "w.safetensors")
    with open_weights(tmp_path / "w.safetensors") as checkpoint:
        for name, tensor in state.items():
            same(checkpoint[name], tensor)
        params = to_flax(checkpoint)
    found = safetensors_torch.load_file(save_torch(tmp_path, params))
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == dtype
        assert bits(found[name]) == bits(tensor)


def test_the_layouts_compute_what_torch_computes() -> None:
    """The axes mean what Flax takes them to mean: the same convolution, the same linear layer."""
    import jax
    from jax import lax

    conv, linear = torch.nn.Conv2d(3, 5, (3, 2)), torch.nn.Linear(4, 6)
    state = {f"conv.{k}": v.detach().numpy() for k, v in conv.state_dict().items()}
    state |= {f"linear.{k}": v.detach().numpy() for k, v in linear.state_dict().items()}
    params = to_flax(state)
    x, y = torch.randn(2, 3, 7, 8), torch.randn(2, 4)
    with jax.default_matmul_precision("highest"):
        image = lax.conv_general_dilated(
            x.numpy().transpose(0, 2, 3, 1),
            params["conv"]["kernel"],
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    image = np.asarray(image) + params["conv"]["bias"]
    row = y.numpy() @ params["linear"]["kernel"] + params["linear"]["bias"]
    # float32 sums of at most 18 products of size 1: a few units in the last place
    tolerance = 18 * float(np.finfo(np.float32).eps) * math.sqrt(18)
    np.testing.assert_allclose(image.transpose(0, 3, 1, 2), conv(x).detach(), atol=tolerance)
    np.testing.assert_allclose(row, linear(y).detach(), atol=tolerance)
    assert to_torch(params).keys() == state.keys()
