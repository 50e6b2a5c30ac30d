"""`ddpm-jax sample` over devices and processes: every image is the same image.

Scripts do the running, in processes of their own: jax fixes the number of devices at its start.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.eight import NUM, RUNS
from cli.sampling import PROGRAM, names, pixels
from launch import finished, launch, printed

from ddpm_jax.cli.devices import Devices, local_devices

# Of 255. With another number of rows on a device XLA may sum in another order, by 1e-6 of a pixel,
# and one that lies between two values then moves by 1. Measured: none does, of this network or of
# the digits.
ROUNDING = 1
# Of a pixel in [0, 1]: sums over channels that lie on several devices; measured 1e-6.
CUT = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def eight(tiny: Path, folder: Path) -> Any:
    found = printed("-m", "tests.cli.eight", tiny, folder, devices=8)
    return json.loads(found.splitlines()[-1])


def drawn(folder: Path) -> np.ndarray:
    assert names(folder) == [f"{number:05d}.png" for number in range(NUM)]
    return np.stack([pixels(folder / name) for name in names(folder)]).astype(int)


@pytest.mark.slow  # fast: test_batches_divide_over_devices
def test_every_device_computes_its_part(eight: Any):
    expected = {name: [[count, batch // count]] for name, (count, batch) in RUNS.items()}
    assert eight["rows"] == expected


def test_batches_divide_over_devices():
    """A default for each device, filled up; a small run takes no more than it needs."""
    eight = Devices(8)
    assert eight.batch_size(None, 64, 50_000) == 512
    assert eight.batch_size(100, 64, 50_000) == 104
    assert eight.batch_size(None, 64, 20) == 24
    assert Devices().batch_size(100, 64, 3) == 3
    assert local_devices() == Devices()  # of one device: no mesh, the programs are as ever


@pytest.mark.slow  # fast: tests/sampling/test_sharding.py
def test_prompts_on_every_device(eight: Any, folder: Path):
    """The text encoder and the decoder too have their params on all of them."""
    assert eight["prompts"] == [[8, 1]]
    found, alone = (
        np.stack([pixels(file) for file in sorted((folder / name).iterdir())]).astype(int)
        for name in ("prompts, eight", "prompts, alone")
    )
    assert found.shape[0] == 6
    assert np.abs(found - alone).max() <= ROUNDING


@pytest.mark.slow  # fast: tests/sampling/test_sharding.py
@pytest.mark.parametrize("name", ["two", "four", "eight", "restarted"])
def test_the_same_bits_with_as_many_images_on_a_device(eight: Any, folder: Path, name: str):
    np.testing.assert_array_equal(drawn(folder / name), drawn(folder / "alone"))


@pytest.mark.slow  # fast: test_folder::test_only_missing_images_are_made
@pytest.mark.parametrize("name", [name for name in RUNS if "," in name])
def test_the_same_images_at_any_batch_size(eight: Any, folder: Path, name: str):
    apart = np.abs(drawn(folder / name) - drawn(folder / "alone"))
    share = (apart > 0).mean()
    print(f"{name}: {share:.2%} of the pixels differ, by at most {apart.max()}")
    assert apart.max() <= ROUNDING
    assert share < 0.01


@pytest.mark.slow  # fast: test_share::test_a_process_makes_its_part_and_leaves_the_others_alone
@pytest.mark.parametrize("form", ["png", "npz"])
def test_two_processes_make_one_folder(
    eight: Any, folder: Path, tiny: Path, tmp_path: Path, form: str
):
    """With the bits of one process; the first to end does not wait for, or stop, the other."""
    out = tmp_path / "out"
    argv = f"--no-cache --model {tiny} --steps 4 --eta 1 --num {NUM} --batch-size 12 --out {out}"
    shards = "--format npz --shard-size 5" if form == "npz" else ""
    command = ("-c", PROGRAM, "sample", *argv.split(), *shards.split())
    both = [
        launch(*command, devices=4, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(index))
        for index in range(2)
    ]
    lines = [finished(process) for process in both]
    counts = [14, 10] if form == "npz" else [12, 12]  # shards of 5, 5 and 4, and of 5 and 5
    for index, (line, count) in enumerate(zip(lines, counts, strict=True)):
        assert line.startswith(f"process {index} of 2: {count} images in ")
    if form == "npz":
        found = np.concatenate([np.load(out / name)["arr_0"][..., 0] for name in names(out)])
    else:
        found = drawn(out)
    np.testing.assert_array_equal(found, drawn(folder / "alone"))


@pytest.mark.slow  # fast: test_devices::test_a_network_with_cut_params
def test_params_may_be_cut(eight: Any):
    """A device has its part of them, between evaluations too, and the images are the same."""
    cut = eight["cut"]
    assert cut["difference"] <= CUT
    assert cut["untouched"]  # the call does not copy them
    assert all(1 / 8 <= share < 1 / 8 + 0.01 for share in cut["share"])  # 1 %: small leaves
    assert cut["gathered"].get("before", 0) == 0
    assert cut["gathered"]["loop"] > 10
