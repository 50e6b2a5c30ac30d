"""`ddpm-jax verify`, with a network whose output is known: zero weights, and a bias at its end."""

from pathlib import Path

import jax
import numpy as np
import pytest
from cli.sampling import complaint, save_tiny
from pipelines.models import tiny

from ddpm_jax.cli import main
from ddpm_jax.evaluation import published

NAME = "google/ddpm-cifar10-32"
BIAS = 0.25


@pytest.fixture(scope="module")
def constant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its output is BIAS everywhere."""
    folder = tmp_path_factory.mktemp("constant")
    model, params = tiny(sample_size=32)
    last = {
        "kernel": np.zeros_like(params["conv_out"]["kernel"]),
        "bias": np.full(1, BIAS, np.float32),
    }
    model.save_pretrained(folder, params | {"conv_out": last})
    return folder


@pytest.mark.parametrize(("off", "code"), [(0.9e-3, 0), (1.1e-3, 1), (np.nan, 1)])
def test_agreement_and_difference(
    off: float,
    code: int,
    constant: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    values = np.full(30, BIAS)
    values[29] += off
    monkeypatch.setitem(published.OUTPUTS, NAME, values)
    assert main(["verify", str(constant), "--as", NAME]) == code
    printed = capsys.readouterr()
    says = f"{constant} is {NAME}: the first 30 values" if code == 0 else f"is not {NAME}"
    assert says in (printed.out or printed.err)


def test_the_input_is_the_published_one(monkeypatch: pytest.MonkeyPatch):
    """Torch's noise of seed 0, and timestep 10, as a network shows that returns both."""
    model, params = tiny(sample_size=32)

    def apply(self: object, variables: object, x: jax.Array, timestep: jax.Array) -> jax.Array:
        return x + (timestep - 10)

    monkeypatch.setattr(type(model), "apply", apply)
    found = published.compare(model, params, NAME)
    # torch.manual_seed(0); torch.randn(1, 1, 32, 32)[0, 0, 0, :4] of torch 2.13
    np.testing.assert_allclose(found.ours[:4], [-1.1258, -1.1524, -0.2506, -0.4339], atol=1e-4)


def test_thirty_numbers_of_each():
    assert all(values.shape == (30,) for values in published.OUTPUTS.values())
    assert len({values.tobytes() for values in published.OUTPUTS.values()}) == 10


def test_what_cannot_be_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = complaint("verify digits", capsys, 2)
    assert "cannot verify digits: no output of it is published. There is one of CompVis" in said
    assert "pass --as" in said
    assert "pass --as" not in complaint("verify digits --as google/nothing", capsys, 2)
    small = save_tiny(tmp_path)
    assert "are 8" in complaint(f"verify {small} --as {NAME}", capsys, 1)
