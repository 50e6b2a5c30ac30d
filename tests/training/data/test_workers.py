"""Worker processes: the same bits, the same warnings, and nobody left behind. Slow to start."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddpm_jax
from ddpm_jax.training.data import Batches, CorruptPictureWarning, Data, make_batches, open_source

pytest.importorskip("grain", reason="needs grain: pip install -e '.[train]'")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures, one of 16 bits, one broken."""
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(0, 256, (12, 15), np.uint8)
        deep = pixels.astype(np.uint16) * 257 + i if i == 4 else pixels
        Image.fromarray(deep).save(tmp_path / f"{i}.png")
    (tmp_path / "6.png").write_bytes((tmp_path / "6.png").read_bytes()[:100])
    return tmp_path


def batches(folder: Path, workers: int) -> Batches:
    data = Data(
        name=str(folder), resolution=8, crop="random", flip=True, max_corrupt=1, workers=workers
    )
    return make_batches(open_source(data), data, batch_size=4, seed=3)


def test_the_same_bits_the_same_warnings_and_an_exact_restore(folder: Path):
    """A run without workers goes on with two, and then without again: as if it never stopped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptPictureWarning)
        expected = list(islice(batches(folder, 0), 9))
        before = batches(folder, 0)
        drawn = [next(before)]
    state = json.loads(json.dumps({**before.state(), "corrupt": []}))
    stream = batches(folder, 2)
    stream.restore(state)
    with pytest.warns(CorruptPictureWarning, match=r"6\.png cannot be read") as caught:
        drawn += islice(stream, 5)
    assert len(caught) == 1
    after = batches(folder, 0)
    after.restore(json.loads(json.dumps(stream.state())))
    stream.close()
    drawn += islice(after, 3)  # without a warning, which would be an error here
    for batch, value in zip(drawn, expected, strict=True):
        for name in batch:
            assert type(batch[name]) is np.ndarray  # no window onto a worker's memory
            np.testing.assert_array_equal(batch[name], value[name], strict=True)


def test_a_worker_that_was_killed_is_told(folder: Path):
    stream = batches(folder, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptPictureWarning)
        next(stream)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        with pytest.raises(ChildProcessError, match=r"has ended: it was killed, .*data\.workers 0"):
            list(islice(stream, 100))  # some batches were there already


SCRIPT = """
import multiprocessing, os, signal, sys
from ddpm_jax.training.data import Data, make_batches, open_source

if __name__ == "__main__":
    data = Data(name="digits", workers=2)
    stream = make_batches(open_source(data), data, batch_size=4, seed=0)
    next(stream), next(stream)  # one of each worker
    workers = [process.pid for process in multiprocessing.active_children()]
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGINT)
    for _ in range(20):
        next(stream)
    print(*workers, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


UNGUARDED = """
import sys
from dataclasses import replace
from pathlib import Path
from training.runs import SMALL, run

data = replace(SMALL.data, workers=1)
run(Path(sys.argv[1]), replace(SMALL, data=data))
"""


def test_a_script_without_a_guard_is_told_so(tmp_path: Path):
    """Its workers would each begin to train, and none would send a picture."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    here = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": f"{here.parent}:{here}"},
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1
    assert 'put what it does under if __name__ == "__main__":' in run.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks processes up in /proc")
def test_workers_outlive_signals_but_not_their_parent(tmp_path: Path):
    (tmp_path / "script.py").write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(Path(ddpm_jax.__file__).parents[1])},
        stdout=subprocess.PIPE,
        check=False,
        text=True,
        timeout=120,
    )
    assert run.returncode == -signal.SIGKILL
    workers = [Path("/proc", pid) for pid in run.stdout.split()]
    assert len(workers) == 2
    end = time.monotonic() + 20
    while any(worker.exists() for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(worker.exists() for worker in workers)
