"""Written files are read bit for bit, also by the safetensors library; complete or absent."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from weights.folders import bits, numbered, peak_memory

from weights_convert import (
    find_weights,
    open_weights,
    save_flax,
    save_orbax,
    save_torch,
    to_flax,
    to_torch,
    weight_files,
)
from weights_convert.rules import flat
from weights_convert.safetensors_io import write_safetensors
from weights_convert.tensors import Stored
from weights_convert.write import replacing

Save = Callable[..., Path]
SAVES: list[Save] = [save_torch, save_flax, save_orbax]


PARAMS: dict[str, Any] = {
    "conv_in": {"kernel": numbered(3, 3, 1, 2), "bias": np.array([np.nan, -0.0], np.float32)},
    "down_blocks.0": {
        "attentions.0": {"to_out.0": {"kernel": numbered(2, 3).astype(ml_dtypes.bfloat16)}},
        "resnets.0": {"norm1": {"scale": numbered(4).astype(np.float16)}},
    },
    "class_embedding": {"embedding": numbered(3, 2).astype(np.float64) / 3},
    "time_proj": {"weight": numbered(4)},
}


def contents(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize("save", SAVES)
def test_every_kind_reads_back_bit_for_bit(tmp_path: Path, save: Save) -> None:
    path = save(tmp_path / "new" / "unet", PARAMS)
    assert contents(tmp_path / "new" / "unet") == {path.name}
    assert find_weights(tmp_path / "new" / "unet") == path
    with open_weights(path) as checkpoint:
        assert checkpoint.shapes["conv_in.weight"] == (2, 1, 3, 3)  # torch's layout for all kinds
        assert checkpoint.dtypes["down_blocks.0.attentions.0.to_out.0.weight"] == ml_dtypes.bfloat16
        for _ in range(2):  # and a second time
            assert bits(flat(to_flax(checkpoint))) == bits(flat(PARAMS))


def test_the_library_reads_names_and_layouts(tmp_path: Path) -> None:
    params = {"conv_in": PARAMS["conv_in"]}
    torch = save_torch(tmp_path, params, variant="fp16")
    assert torch.name == "diffusion_pytorch_model.fp16.safetensors"
    for path, wanted, kind in (
        (torch, to_torch(params), "pt"),
        (save_flax(tmp_path, params), {".".join(p): a for p, a in flat(params).items()}, "flax"),
    ):
        with safe_open(path, "np") as file:
            assert file.metadata() == {"format": kind}
        assert bits(load_file(path)) == bits(wanted)


def test_orbax_reads_the_nested_tree(tmp_path: Path) -> None:
    import orbax.checkpoint as ocp

    path = save_orbax(tmp_path, PARAMS)
    with ocp.PyTreeCheckpointer() as checkpointer:
        found = checkpointer.restore(path)
    kernel = found["down_blocks.0"]["attentions.0"]["to_out.0"]["kernel"]
    np.testing.assert_array_equal(np.asarray(kernel, np.float32), numbered(2, 3))


@pytest.mark.parametrize("save", SAVES)
def test_jax_arrays_are_written(tmp_path: Path, save: Save) -> None:
    import jax
    import jax.numpy as jnp

    given = {name: PARAMS[name] for name in ("conv_in", "down_blocks.0")}
    with open_weights(save(tmp_path, jax.tree.map(jnp.asarray, given))) as checkpoint:
        assert bits(flat(to_flax(checkpoint))) == bits(flat(given))


@pytest.mark.parametrize("save", SAVES)
def test_an_earlier_file_is_replaced(tmp_path: Path, save: Save) -> None:
    save(tmp_path, {"a": {"bias": numbered(2)}})
    path = save(tmp_path, {"b": {"bias": numbered(3)}})
    assert contents(tmp_path) == {path.name}
    with open_weights(path) as checkpoint:
        assert checkpoint.shapes == {"b.bias": (3,)}


@pytest.mark.parametrize("save", SAVES)
def test_leaves_without_a_rule_are_refused_and_nothing_is_written(
    tmp_path: Path, save: Save
) -> None:
    with pytest.raises(ValueError, match=r"a\.gamma.*b\.beta"):
        save(tmp_path, {"a": {"gamma": numbered(2)}, "b": {"beta": numbered(2)}})
    assert not contents(tmp_path)


def test_empty_tensors(tmp_path: Path) -> None:
    params = {"a": {"kernel": np.zeros((0, 3), np.float32)}}
    for save in (save_torch, save_flax):
        with open_weights(save(tmp_path, params)) as checkpoint:
            assert checkpoint["a.weight"].shape == (3, 0)
        for name in contents(tmp_path):
            (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=r"empty tensors: a\.weight"):
        save_orbax(tmp_path, params)
    assert not contents(tmp_path)


@pytest.mark.parametrize("save", [save_flax, save_orbax])
def test_weights_with_a_higher_priority_are_an_error(tmp_path: Path, save: Save) -> None:
    old = save_torch(tmp_path, PARAMS)
    with pytest.raises(ValueError, match=f"{old.name}, which is read before"):
        save(tmp_path, PARAMS)
    assert contents(tmp_path) == {old.name}


@pytest.mark.parametrize("variant", ["../x", "a/b", "", ".", "fp 16", "\u00e9"])
def test_a_variant_must_fit_in_a_file_name(tmp_path: Path, variant: str) -> None:
    folder = tmp_path / "new" / "unet"
    for use in (
        lambda: save_torch(folder, PARAMS, variant=variant),
        lambda: find_weights(folder, variant),
        lambda: weight_files(["config.json"], variant),
    ):
        with pytest.raises(ValueError, match=r"variant must consist of .* got '"):
            use()
    assert contents(tmp_path) == set()


def test_a_variant_hides_nothing(tmp_path: Path) -> None:
    save_torch(tmp_path, PARAMS, variant="fp16")
    save_flax(tmp_path, PARAMS)


# Interruptions


def broken(error: BaseException) -> dict[str, Stored]:
    def read() -> Any:
        raise error

    good = Stored((2,), np.dtype(np.float32), lambda: numbered(2))
    return {"a.bias": good, "b.bias": Stored((2,), np.dtype(np.float32), read)}


@pytest.mark.parametrize("error", [ValueError("torn"), KeyboardInterrupt(), OSError(28, "full")])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as partial:
        write_safetensors(partial, broken(error), {})
    assert path.read_text() == "old"
    assert contents(tmp_path) == {path.name}


def test_a_rename_that_fails_brings_the_old_folder_back(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out"):
        pass  # nothing was written, so there is nothing to rename
    assert contents(tmp_path) == {"out"}
    assert contents(tmp_path / "out") == {"old"}


KILLED = """
import os, signal, sys
import numpy as np
from weights_convert.rules import Stored
from weights_convert.write import write_torch

def read():
    os.kill(os.getpid(), signal.SIGKILL)

good = Stored((9,), np.dtype("f4"), lambda: np.zeros(9, "f4"))
from pathlib import Path
write_torch(Path(sys.argv[1]), {"a.bias": good, "b.bias": Stored((9,), np.dtype("f4"), read)})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_write_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert killed.returncode == -signal.SIGKILL
    assert all(name.startswith(".") for name in contents(tmp_path))
    with pytest.raises(FileNotFoundError):
        find_weights(tmp_path)


# Memory

COUNT, WIDTH = 16, 512
TENSOR = WIDTH * WIDTH * 4  # bytes: 1 MiB
SLACK = TENSOR // 4  # headers, names and the interpreter


@pytest.mark.parametrize(
    ("save", "copies"), [(save_torch, 1), (save_flax, 1), (save_orbax, 2 * COUNT)]
)
def test_memory_of_writing(tmp_path: Path, save: Save, copies: int) -> None:
    """One more tensor; for orbax at most two copies of all."""
    params = {f"m.{i}": {"kernel": numbered(WIDTH, WIDTH)} for i in range(COUNT)}
    save(tmp_path / "before", {"m": {"kernel": numbered(2, 2)}})  # imports modules
    peak = peak_memory(lambda: save(tmp_path / "after", params))
    assert peak <= copies * (TENSOR + SLACK)  # without the params, which were allocated before
