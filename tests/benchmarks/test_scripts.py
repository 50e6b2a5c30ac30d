"""Both benchmarks from end to end on a tiny network, without torch and beside it."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import pytest

import ddpm_jax as dj
from benchmarks import sampling, training
from benchmarks.networks import NETWORKS

pytestmark = pytest.mark.usefixtures("as_users_run")  # figures with type checks mean nothing


def fast(script: ModuleType, folder: Path) -> dict[str, Any]:
    """The results of a fast run."""
    out = folder / "fast.json"
    script.main(["--fast", "--no-compile", "--out", str(out)])
    assert out.with_suffix(".md").read_text().startswith("# ")
    return json.loads(out.read_text())


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
    shapes = dj.UNet2DModel.from_config(NETWORKS[network]).shapes()
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


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
@pytest.mark.usefixtures("without_torch")
def test_training_alone(tmp_path: Path) -> None:
    results = fast(training, tmp_path)
    assert ["error" in row for row in results["training"]] == [False, True]
    (row,) = results["input"]
    assert all(0 < share < 1 for share in row["waiting"])
    assert row["alone"] > 0


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize("script", [sampling, training])
def test_both_libraries_compute_the_same(script: ModuleType, tmp_path: Path) -> None:
    results = fast(script, tmp_path)
    _, theirs = results["sampling" if script is sampling else "training"]
    assert "error" not in theirs
    assert 0 < max(theirs["difference"].values()) < 2e-5  # float32: the order of sums
