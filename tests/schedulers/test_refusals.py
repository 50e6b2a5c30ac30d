"""Bad configs and bad numbers of steps are ValueErrors that name what was wrong."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ddpm_jax as dj
from ddpm_jax.schedulers import SCHEDULERS

ROOT = Path(__file__).parents[2]


def test_wrong_arguments_are_refused() -> None:
    """In its own process, because the tests' type checks would raise earlier for some."""
    command = [sys.executable, "-m", "tests.schedulers.refusals"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "cls", [cls for cls in SCHEDULERS if hasattr(cls, "rescale_betas_zero_snr")]
)
def test_epsilon_with_zero_terminal_snr_is_refused(cls: Any) -> None:
    with pytest.raises(ValueError, match="zero_snr"):
        cls(rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match="zero_snr"):
        cls(rescale_betas_zero_snr=True, prediction_type="epsilon")
    # a run up cannot begin at the data with "sample"
    above = {"set_alpha_to_one": False} if cls.ascends and hasattr(cls, "set_alpha_to_one") else {}
    for prediction in ("v_prediction", "sample"):
        scheduler = cls(rescale_betas_zero_snr=True, prediction_type=prediction, **above)
        assert scheduler.table(5) is not None


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ValueError, match="clip_sample_range") as error:
        dj.DDPMScheduler(clip_sample_range=-1.0, sample_max_value=0.0)
    assert "sample_max_value" in str(error.value)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(TypeError):
        dj.DDIMScheduler(variance_type="fixed_small")
    with pytest.raises(TypeError):
        dj.DDPMScheduler().table(10, eta=0.5)
    with pytest.raises(TypeError):
        dj.DDPMScheduler(500)
