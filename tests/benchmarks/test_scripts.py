"""The benchmarks from end to end on a tiny network, without torch and beside it."""

import json
import math
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import ddpm_jax as dj
from benchmarks import (
    levers,
    memory,
    precision,
    reconstruction,
    report,
    sampling,
    scaling,
    startup,
    text_to_image,
    training,
)
from benchmarks.networks import NETWORKS, PIPELINES
from ddpm_jax.models.layers import cudnn

pytestmark = pytest.mark.usefixtures("as_users_run")  # figures with type checks mean nothing


def fast(script: ModuleType, folder: Path) -> dict[str, Any]:
    """The results of a fast run."""
    out = folder / "fast.json"
    script.main(["--fast", "--no-compile", "--out", str(out)])
    assert out.with_suffix(".md").read_text().startswith("# ")
    return json.loads(out.read_text())


def size(model: dj.Model) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(model.shapes()))


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.torch_side", None)


@pytest.mark.parametrize(
    ("network", "count"),
    [
        ("cifar10", 35_746_307),
        # fast: test_unet_params::test_counts
        pytest.param("cat256", 113_673_219, marks=pytest.mark.slow),
    ],
)
def test_networks_have_the_checkpoints_numbers_of_params(network: str, count: int) -> None:
    assert size(dj.UNet2DModel.from_config(NETWORKS[network])) == count


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        # fast: test_unet_condition::test_the_sizes_of_stable_diffusion
        pytest.param("unet", dj.UNet2DConditionModel, 859_520_964, marks=pytest.mark.slow),
        ("vae", dj.AutoencoderKL, 83_653_863),
        ("text_encoder", dj.CLIPTextModel, 123_060_480),
    ],
)
def test_pipelines_have_stable_diffusions_numbers(
    name: str, kind: type[dj.Model], count: int
) -> None:
    assert size(kind.from_config(PIPELINES["sd15"].configs[name])) == count


@pytest.mark.slow
@pytest.mark.usefixtures("without_torch")
def test_sampling_alone(tmp_path: Path) -> None:
    results = fast(sampling, tmp_path)
    ours, theirs = results["sampling"]
    assert ours["rate"] > 0
    assert len(ours["seconds"]) == results["rounds"] == 2
    assert "torch_side" in theirs["error"]
    assert [row["cost"] for row in results["costs"]] == list(sampling.COSTS)


@pytest.mark.slow
def test_levers(tmp_path: Path) -> None:
    rows = fast(levers, tmp_path)["levers"]
    assert [row["lever"] for row in rows] == [
        lever.name for lever in levers.LEVERS if "cpu" in lever.devices
    ]
    assert all(len(row["gain"]) == 3 for row in rows), rows


def test_memory(tmp_path: Path) -> None:
    (row,) = fast(memory, tmp_path)["memory"]
    assert row["evaluation"]["argument"] >= row["params"] > 0
    assert row["over"] >= 1


@pytest.mark.slow
def test_startup(tmp_path: Path) -> None:
    out = tmp_path / "startup.json"
    startup.main(["--models", "digits", "--rounds", "1", "--out", str(out)])
    (row,) = json.loads(out.read_text())["startup"]
    assert row["ratio"][1] < 0.9  # the programs are found


@pytest.mark.slow
def test_precision(tmp_path: Path) -> None:
    out = tmp_path / "precision.json"
    precision.main(["--num", "64", "--steps", "3", "--out", str(out)])
    rows = {row["precision"]: row for row in json.loads(out.read_text())["precision"]}
    assert rows["float32"]["error"] == 0
    # bfloat16 has 7 bits, float16 10
    assert rows["bfloat16"]["error"] > rows["float16"]["error"] > 0


def test_a_lever_that_changes_the_output_is_not_timed(tmp_path: Path) -> None:
    ours = sampling.Ours(report.Case("tiny", 1, "float32"), None)
    base = levers.Compiled(ours, levers.Lever("base"))
    wrong = levers.Lever("wrong", loop=lambda ours: lambda params, table, x, start, stop: 2 * x)
    given = Namespace(device="cpu", rounds=1, seconds=0.01)
    assert "differ" in levers.pulled(ours, wrong, base, given, math.inf)["error"]
    assert levers.pulled(ours, wrong, base, given, 0.0)["error"] == "the time was up"


@pytest.mark.slow
@pytest.mark.usefixtures("without_torch")
def test_training_alone(tmp_path: Path) -> None:
    results = fast(training, tmp_path)
    assert ["error" in row for row in results["training"]] == [False, True]
    (row,) = results["input"]
    assert all(0 < share < 1 for share in row["waiting"])
    assert row["alone"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("without_torch")
def test_text_to_image_alone(tmp_path: Path) -> None:
    results = fast(text_to_image, tmp_path)
    ours, theirs = results["text_to_image"]
    assert ours["image"] > 0
    assert len(ours["seconds"]) == len(ours["one_step"]) == results["rounds"] == 2
    assert "torch_side" in theirs["error"]


@pytest.mark.slow
def test_scaling(tmp_path: Path) -> None:
    """In its own process, because the number of devices is fixed when jax starts."""
    out = tmp_path / "fast.json"
    command = [sys.executable, "-m", "benchmarks.scaling", "--fast", "--out", str(out)]
    given = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    root = Path(__file__).parents[2]
    subprocess.run(command, cwd=root, env=os.environ | given, check=True, capture_output=True)
    found = json.loads(out.read_text())
    assert list(found["over_one"]) == ["1", "2", "4", "8"]
    assert all(len(took) == 2 and min(took) > 0 for took in found["seconds_of"].values())
    assert (found["pixel_bytes"], found["rounds"]) == (64, 2)
    assert "not to be quoted" in out.with_suffix(".md").read_text()


def test_scaling_in_words() -> None:
    """A batch of 100 in 2 s on a device, and in 0.5 s to a file: the writer keeps up with four."""
    seconds = {"1": [2.0] * 9, "2": [2.2] * 9, "png": [0.5] * 9, "npz": [0.1] * 9}
    result = {"batch": 100, "steps": 5, "seconds_of": seconds, "pixel_bytes": 64, "files": 10}
    seconds |= {f"{what} {side}": [0.01] * 9 for what in ("check", "decode") for side in (32, 256)}
    result |= {"over_one": {"1": [1.0] * 3, "2": [1.1] * 3}, "param_bytes": 8, "rounds": 9}
    result |= {"machine": report.machine(), "taken": "today"}
    text = scaling.markdown(result)
    assert "| 2 | 2.2 | 45.45 | 1.10 (1.10 to 1.10) |" in text
    assert "| png | 0.5 | 200 | 4 |" in text
    assert "| 32x32 | 1000 | 1000 | 50 |" in text


def test_a_network_without_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside one with it, on what passes for a GPU."""
    monkeypatch.setattr(cudnn, "has_programs", lambda: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda q, *_args, **_options: q)
    inputs = jnp.ones((1, 8, 8, 4)), 3, jnp.ones((1, 5, 16))
    config = PIPELINES["tiny"].configs["unet"]
    params = dj.UNet2DConditionModel.from_config(config).shapes()

    def program(kind: type[dj.UNet2DConditionModel]) -> str:
        unet = kind.from_config(config, dtype=jnp.bfloat16)
        return str(jax.make_jaxpr(unet.apply)({"params": params}, *inputs))

    assert "platform_index" in program(dj.UNet2DConditionModel)
    assert "platform_index" not in program(text_to_image.WithoutCudnn)


def test_a_case_that_would_not_end_in_time_is_left_out() -> None:
    clock = text_to_image.Clock(minutes=1)
    clock.check("ddpm_jax")
    clock.note({"ddpm_jax": {"prepared": 50.0}})
    clock.note({"ddpm_jax": {"prepared": 1.0}})
    rows = text_to_image.compared(
        {"ddpm_jax": pytest.fail},
        report.Case("tiny", 1, "float32"),
        Namespace(device="cpu", rounds=1),
        clock,
    )
    assert "needs about 70 s" in rows[0]["error"]


def test_figures_of_a_pipeline() -> None:
    """Of 11 steps in 6 s and one in 1 s: two evaluations a second."""
    taken = [{"ddpm_jax": 6.0, "ddpm_jax, one step": 1.0}] * 3
    found = text_to_image.figures(taken, "ddpm_jax", 11, 4)
    assert (found["image"], found["rate"]) == (1.5, 2.0)


def test_targets_stand_beside_what_was_measured() -> None:
    case = {"network": "sd15", "batch": 1, "precision": "bfloat16"}
    figures = {"image": 0.4, "rate": 130.0, "first_call": 30.0}
    ours = case | figures | {"library": "ddpm_jax", "ratio": [1.0, 1.0, 1.0]}
    compiled = case | figures | {"library": "torch.compile", "ratio": [1.1, 1.2, 1.3]}
    failed = case | {"library": "torch.compile", "error": "OSError: no compiler"}
    ((*_, ratio, _), (*_, none, _)) = [
        *text_to_image._targets([ours, compiled]),
        *text_to_image._targets([ours, failed]),
    ]
    assert (ratio, none) == ("1.20 (1.10 to 1.30)", "not timed")
    (line,) = text_to_image._targets([ours, compiled])
    assert line[:3] == ["1", "0.400", "at most 0.45"]


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize("script", [sampling, training, text_to_image])
def test_both_libraries_compute_the_same(script: ModuleType, tmp_path: Path) -> None:
    results = fast(script, tmp_path)
    _, theirs = results[script.__name__.rpartition(".")[2]]
    assert "error" not in theirs
    assert 0 < max(theirs["difference"].values()) < 2e-5  # float32: the order of sums


@pytest.mark.slow  # fast: tests/sampling/test_inverted.py
def test_reconstruction(tmp_path: Path) -> None:
    out = tmp_path / "reconstruction.json"
    reconstruction.main(["--num", "4", "--steps", "5", "40", "--out", str(out)])
    coarse, fine = json.loads(out.read_text())["errors"].values()
    assert 0 < fine < coarse < 0.1
    assert "| 40" in out.with_suffix(".md").read_text()
