"""Old names, and tensors that are stored under two names."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from weights.folders import bits, numbered

from weights_convert import to_flax, to_torch
from weights_convert.names import current_name, origins

Arrays = dict[str, np.ndarray[Any, Any]]


def converted(state: Arrays) -> Arrays:
    return to_torch(to_flax(state))


PAIRS = {
    "mid.attentions.0.query.weight": "mid_block.attentions.0.to_q.weight",
    "mid_block.attentions.0.key.bias": "mid_block.attentions.0.to_k.bias",
    "down_blocks.1.attentions.2.value.weight": "down_blocks.1.attentions.2.to_v.weight",
    "up_blocks.1.attentions.2.proj_attn.bias": "up_blocks.1.attentions.2.to_out.0.bias",
    "upsample_blocks.1.attentions.10.NIN_3.b": "up_blocks.1.attentions.10.to_out.0.bias",
    "mid.attentions.0.GroupNorm_0.weight": "mid_block.attentions.0.group_norm.weight",
    "downsample_blocks.0.downsamplers.0.op.bias": "down_blocks.0.downsamplers.0.conv.bias",
    "down_blocks.0.downsamplers.0.Conv2d_0.bias": "down_blocks.0.downsamplers.0.conv.bias",
    "up_blocks.0.upsamplers.0.Conv2d_0.bias": "up_blocks.0.upsamplers.0.conv.bias",
    "time_steps.weight": "time_proj.weight",
    "time_proj.W": "time_proj.weight",
    "time_steps.W": "time_proj.weight",
}
ONLY_LOOK_OLD = [
    "middle.query.weight",  # not an attention block
    "encoder.query.weight",
    "xmid.conv.weight",
    "mid",
    "down_blocks.0.mid.weight",
    "down_blocks.0.resnets.0.Conv2d_0.weight",
    "down_blocks.0.attentions.0.queryx.weight",
    "myattentions.0.query.weight",
]


def test_old_names_become_current_and_others_stay() -> None:
    assert {old: current_name(old) for old in PAIRS} == PAIRS
    stay = [*PAIRS.values(), *ONLY_LOOK_OLD]
    assert [current_name(name) for name in stay] == stay


@given(
    st.lists(
        st.sampled_from(
            ["mid", "time_steps", "attentions", "0", "query", "NIN_1", "W", "b", "op", "conv"]
            + ["downsamplers", "Conv2d_0", "weight", "bias", "time_proj"]
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_renamed_name_is_never_renamed_again(parts: list[str]) -> None:
    once = current_name(".".join(parts))
    assert current_name(once) == once


ATTENTION = "mid_block.attentions.0"


def test_1x1_convolutions_of_attention_are_linear_layers() -> None:
    weight = numbered(4, 4)
    names = [f"{ATTENTION}.{old}.weight" for old in ("query", "to_k", "value", "proj_attn")]
    other = {"down_blocks.0.resnets.0.conv_shortcut.weight": numbered(4, 2, 1, 1)}
    found = converted(dict.fromkeys(names, weight[:, :, None, None]) | other)
    linear = {f"{ATTENTION}.{new}.weight": weight for new in ("to_q", "to_k", "to_v", "to_out.0")}
    assert bits(found) == bits(linear | other)


def test_nin_weights_are_transposed() -> None:
    found = converted({f"{ATTENTION}.NIN_0.W": numbered(3, 4), f"{ATTENTION}.NIN_0.b": numbered(4)})
    np.testing.assert_array_equal(found[f"{ATTENTION}.to_q.weight"], numbered(3, 4).T)
    np.testing.assert_array_equal(found[f"{ATTENTION}.to_q.bias"], numbered(4))


SAMPLER = "down_blocks.0.downsamplers.0"


@pytest.mark.parametrize("order", [1, -1])
def test_copies_become_one_tensor(order: int) -> None:
    names = [f"{SAMPLER}.{name}.weight" for name in ("conv", "op", "Conv2d_0")]
    found = converted(dict.fromkeys(names[::order], numbered(2, 2, 3, 3)))
    assert bits(found) == bits({names[0]: numbered(2, 2, 3, 3)})
    nan = np.array([np.nan, 1], np.float32)
    found = converted(dict.fromkeys(["time_proj.W", "time_proj.weight"][::order], nan))
    assert bits(found) == bits({"time_proj.weight": nan})


def test_two_names_that_become_one_are_refused() -> None:
    assert origins("ab", str.upper, "network") == {"A": "a", "B": "b"}
    with pytest.raises(ValueError, match=r"names that no network has: b$"):
        origins("ab", lambda name: "A", "network")


def test_copies_that_differ_in_value_are_refused() -> None:
    other = numbered(4)
    other[2] = -2
    with pytest.raises(ValueError, match=r"time_proj\.weight and time_proj\.W .* differ in value"):
        to_flax({"time_proj.W": numbered(4), "time_proj.weight": other})


def test_all_copies_that_differ_in_shape_or_dtype_are_listed() -> None:
    state = {
        "time_proj.W": numbered(4),
        "time_proj.weight": numbered(5),
        f"{SAMPLER}.conv.bias": numbered(2),
        f"{SAMPLER}.op.bias": numbered(2).astype(np.float16),
    }
    with pytest.raises(ValueError, match=r"time_proj\.weight and time_proj\.W, .*conv.*op\.bias"):
        to_flax(state)
