"""What docs/differences.md says of us and no other test shows."""

import pytest

import ddpm_jax as dj


def test_eta_above_one_is_refused() -> None:
    assert len(dj.DDIMScheduler().table(10, eta=1.0)) == 10
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\], got 1.5"):
        dj.DDIMScheduler().table(10, eta=1.5)
