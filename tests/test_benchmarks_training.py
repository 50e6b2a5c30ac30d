"""The benchmark of training: its report on made-up results, and fast runs from end to end."""

import json
from pathlib import Path
from typing import Any

import jax
import pytest
from benchmark_results import ENTRY, MACHINE, made_up

import ddpm_jax as dj
from benchmarks import training, training_report
from benchmarks.models import Configuration
from benchmarks.networks import network_config
from benchmarks.training_models import configurations
from ddpm_jax.training.run.settings import Settings


def result(took: dict[str, float], part: str = "training", **changes: Any) -> dict[str, Any]:
    """A made-up result of the digits, in so many seconds."""
    configuration = Configuration(
        part=part, model="digits", batch=64, precision="float32", device="cpu"
    )
    taken = made_up(configuration, took, rounds=9)
    if part == "input":
        taken["contenders"] = {"ddpm_jax": ENTRY}
    return {**taken, **changes}


def rows(*results: dict[str, Any]) -> list[list[str]]:
    """The cells of the report's tables."""
    text = training_report.markdown({"machine": MACHINE, "configurations": results})
    return [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize(("seconds", "told"), [(0.75, "met"), (0.65, "missed")])
def test_on_a_cpu_the_target_is_against_eager(seconds: float, told: str) -> None:
    took = {"ddpm_jax": 1.0, "diffusers": seconds, "torch.compile": 0.5}
    _, _, ours, eager, compiled = rows(result(took))
    assert ours[3:8] == ["ddpm_jax", "10", "640", "", ""]
    assert eager[6:8] == [f"{seconds} ({seconds} to {seconds})", f"0.7, {told}"]
    assert compiled[6:8] == ["0.5 (0.5 to 0.5)", ""]


@pytest.mark.parametrize(
    ("eager", "compiled", "targets"),
    [
        (2.0, 1.2, ["", "1.3, missed"]),
        (1.4, 1.5, ["1.3, met", ""]),
    ],
    ids=["compiled is better", "eager is better"],
)
def test_on_a_gpu_the_target_is_against_the_better(
    eager: float, compiled: float, targets: list[str]
) -> None:
    what = {"model": "cifar10", "batch": 128, "precision": "bfloat16", "device": "gpu"}
    took = {"ddpm_jax": 1.0, "diffusers": eager, "torch.compile": compiled}
    assert [row[7] for row in rows(result(took, **what))[-2:]] == targets


def test_without_the_better_one_nothing_is_judged() -> None:
    what = {"model": "cifar10", "batch": 128, "precision": "bfloat16", "device": "gpu"}
    taken = result({"ddpm_jax": 1.0, "diffusers": 2.0}, **what)
    taken["contenders"] = {**taken["contenders"], "torch.compile": {"error": "no C++ compiler"}}
    *_, eager, compiled = rows(taken)
    assert eager[6:8] == ["2 (2 to 2)", ""]
    assert compiled[4] == "not measured: no C++ compiler"
    assert len(compiled) == len(eager)


@pytest.mark.parametrize(("waiting", "told"), [(0.01, "met"), (0.03, "missed")])
def test_waiting_and_its_target(waiting: float, told: str) -> None:
    figures = {"waiting": [waiting] * 9, "alone": 50.0}
    (*_, row) = rows(result({"fed": 1.1, "loop": 1.0}, "input", input=figures))
    share = f"{100 * waiting:.1f}"
    assert row == [
        *("digits", "64", "float32", "9.091", "581.8"),
        *(f"{share} % ({share} to {share})", f"at most 2 %, {told}", "10.0 % (10.0 to 10.0)"),
        *("3200", "0 %"),
    ]


def test_the_usual_runs() -> None:
    parts = ("training", "input")
    cpu = [(c.part, c.model, c.batch, c.precision) for c in configurations("cpu", parts)]
    assert cpu == [
        ("training", "digits", 64, "float32"),
        ("input", "digits", 64, "float32"),
        ("input", "pictures", 64, "float32"),
    ]
    gpu = [(c.part, c.model, c.batch, c.precision) for c in configurations("gpu", parts)]
    assert gpu == [(part, "cifar10", 128, "bfloat16") for part in parts]


def test_the_networks_of_a_gpu_are_the_papers() -> None:
    (configuration,) = configurations("gpu", ("training",))
    shapes = dj.UNet2DModel.from_config(network_config(configuration)).shapes()
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 35_746_307  # Ho et al., CIFAR-10


def test_pictures_are_files_that_the_input_reads(tmp_path: Path) -> None:
    from benchmarks.training_models import PICTURES, furnish
    from ddpm_jax.training.data import open_source

    (configuration,) = configurations("cpu", ("input",), ("pictures",), 3, "bfloat16")
    furnish(configuration, tmp_path)
    settings = Settings.load(tmp_path / "settings.json")
    source = open_source(settings.data)
    assert (len(source), source.shape) == (PICTURES, (32, 32, 3))
    assert (settings.loop.batch_size, settings.loop.dtype) == (3, "bfloat16")


def test_results_are_named_by_the_device() -> None:
    assert training.device_name("cpu", "Some GPU, 1.2") == "cpu"
    assert training.device_name("gpu", "NVIDIA H100 80GB HBM3, 570.1\n") == "nvidia-h100-80gb-hbm3"


def test_a_fast_run_of_the_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fast"
    arguments = ["--fast", "--against", "--parts", "input", "--out", str(out)]
    assert training.main(arguments) == 0
    (taken,) = json.loads(out.with_suffix(".json").read_text())["configurations"]
    assert [set(took) for took in taken["rounds"]] == [{"fed", "loop"}] * 2
    assert taken["evaluations"] >= 8
    assert all(0 < share < 1 for share in taken["input"]["waiting"])
    assert len(taken["input"]["waiting"]) == 2
    assert taken["input"]["alone"] > 0
    text = out.with_suffix(".md").read_text()
    assert "| tiny | 2 | float32 |" in text
    assert capsys.readouterr().out.rstrip() == text.rstrip()


@pytest.mark.parity
def test_a_fast_run_beside_torch_begins_with_the_same_update(tmp_path: Path) -> None:
    out = tmp_path / "fast"
    arguments = ["--fast", "--against", "diffusers", "--parts", "training", "--out", str(out)]
    assert training.main(arguments) == 0
    (taken,) = json.loads(out.with_suffix(".json").read_text())["configurations"]
    apart = taken["contenders"]["diffusers"]["difference"]
    assert set(apart) == {"loss", "grad_norm"}
    assert max(apart.values()) < 2e-5  # float32, as everywhere
    assert "error" not in taken["contenders"]["diffusers"]
