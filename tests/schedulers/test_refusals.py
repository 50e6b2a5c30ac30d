"""Bad configs and bad numbers of steps are ValueErrors that name what was wrong."""

from typing import Any

import pytest

import ddpm_jax as dj
from ddpm_jax.schedulers import SCHEDULERS
from tests.schedulers.refusals import attempts


@pytest.mark.usefixtures("as_users_run")  # type checks would raise earlier for some
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, before a table is refused
def test_wrong_arguments_are_refused() -> None:
    wrong = []
    for text, attempt, named in attempts():
        try:
            attempt()
        except Exception as error:
            if not isinstance(error, ValueError) or named not in str(error):
                wrong.append(f"{text}: {type(error).__name__}, which must name {named}: {error}")
        else:
            wrong.append(f"{text}: accepted")
    assert not wrong, "\n".join(wrong)


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
