"""Worker processes: the same bits, the same errors, and none left behind. Slow to start."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import ddpm_jax
from ddpm_jax.training.data import Batches, Data, UnreadableImage, make_batches, open_source

pytest.importorskip("grain", reason="needs grain: pip install -e '.[train]'")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images, one of 16 bits."""
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(0, 256, (12, 15), np.uint8)
        deep = pixels.astype(np.uint16) * 257 + i if i == 4 else pixels
        Image.fromarray(deep).save(tmp_path / f"{i}.png")
    return tmp_path


def batches(folder: Path, workers: int) -> Batches:
    data = Data(name=str(folder), resolution=8, crop="random", flip=True, workers=workers)
    return make_batches(open_source(data), data, batch_size=4, seed=3)


def test_the_same_bits_and_an_exact_restore(folder: Path):
    """A run without workers continues with two, and then without: as if it had never stopped."""
    expected = list(islice(batches(folder, 0), 9))
    before = batches(folder, 0)
    drawn = [next(before)]
    stream = batches(folder, 2)
    stream.restore(json.loads(json.dumps(before.state())))
    drawn += islice(stream, 5)
    after = batches(folder, 0)
    after.restore(json.loads(json.dumps(stream.state())))
    stream.close()
    assert not multiprocessing.active_children()
    drawn += islice(after, 3)
    for batch, value in zip(drawn, expected, strict=True):
        for name in batch:
            assert type(batch[name]) is np.ndarray  # no window onto a worker's memory
            np.testing.assert_array_equal(batch[name], value[name], strict=True)


@pytest.mark.slow  # fast: test_unreadable has the errors of threads
def test_errors_of_a_worker(folder: Path):
    """An unreadable image has the same error as without workers; a killed worker is one, too."""
    stream = batches(folder, 1)
    next(stream)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(RuntimeError, match=r"[Ww]orker process .*was terminated"):
        list(islice(stream, 100))  # some batches were ready already
    (folder / "6.png").write_bytes((folder / "6.png").read_bytes()[:100])
    with pytest.raises(UnreadableImage, match=r"6\.png cannot be read"):
        list(islice(stream, 100))


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


@pytest.mark.slow  # fast: test_a_script_that_is_imported_by_its_workers
def test_a_script_without_a_guard_ends(tmp_path: Path):
    """Its workers would each begin to train, and none would send an image."""
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


def test_a_script_that_is_imported_by_its_workers(monkeypatch: pytest.MonkeyPatch):
    """As multiprocessing imports it, before it says who the parent is."""
    data = Data(name="digits", workers=1)
    monkeypatch.setitem(sys.modules, "__mp_main__", ModuleType("__mp_main__"))
    with pytest.raises(RuntimeError, match="put what it does under if __name__"):
        make_batches(open_source(data), data, batch_size=4, seed=0)


def test_a_script_that_workers_cannot_import(monkeypatch: pytest.MonkeyPatch):
    """As Python runs a script that it reads from standard input."""
    main = ModuleType("__main__")
    main.__file__ = "<stdin>"
    monkeypatch.setitem(sys.modules, "__main__", main)
    data = Data(name="digits", workers=1)
    with pytest.raises(RuntimeError, match="<stdin> is not a file: save the script in one"):
        make_batches(open_source(data), data, batch_size=4, seed=0)
    alone = Data(name="digits")
    make_batches(open_source(alone), alone, batch_size=4, seed=0)


@pytest.mark.slow  # fast: no process stays after the test of the same bits
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
