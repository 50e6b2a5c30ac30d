"""What the tests of runs share."""

from pathlib import Path

import pytest
from training.runs import run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    outcome = run(out)
    assert outcome == (8, None, 1)  # one compilation of the step
    return out
