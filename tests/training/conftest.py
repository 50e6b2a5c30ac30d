"""What the tests of runs share."""

import os
from pathlib import Path

import pytest
from filelock import FileLock
from training.runs import run


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, made once for all tests and all workers; copy it to change it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # then the folder is the worker's own
        folder = folder.parent
    with FileLock(folder / "whole.lock"):
        if not (folder / "whole").exists():
            outcome = run(folder / "unfinished")
            assert outcome == (8, None, 1)  # one compilation of the step
            (folder / "unfinished").rename(folder / "whole")
    return folder / "whole"
