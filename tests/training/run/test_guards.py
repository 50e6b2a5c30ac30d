"""What guards a run: the watch over its loss, signals, the lock, errors with advice, a trace."""

import errno
import hashlib
import math
import signal
import threading
import time
from pathlib import Path
from typing import Any

import jax
import pytest

from ddpm_jax.training.run.guards import (
    Trace,
    TrainingError,
    Watch,
    compiled,
    explained,
    locked,
    stop_on_signals,
)
from ddpm_jax.training.run.settings import Loop


def test_numbers_that_are_none_are_named():
    with pytest.raises(TrainingError) as stopped:
        Watch(10).see(7, {"loss": 0.5, "grad_norm": math.inf}, list(range(20)))
    assert str(stopped.value) == (
        "update 7: grad_norm is inf (images 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10 more)"
    )


def feed(watch: Watch, losses: list[float]) -> None:
    for step, loss in enumerate(losses, start=1):
        watch.see(step, {"loss": loss})


def test_divergence_is_a_mean_above_the_lowest():
    feed(Watch(10), [1.0] * 60 + [400.0])  # one outlier: a mean of 9
    with pytest.raises(TrainingError, match="update 62: the loss diverges, 17 over the last 50"):
        feed(Watch(10), [1.0] * 60 + [400.0, 400.0])
    feed(Watch(0), [1.0] * 60 + [400.0] * 60)  # 0 asks for none


def test_it_goes_on_from_its_state():
    first, second = Watch(10), Watch(10)
    feed(first, [1.0] * 60 + [300.0])
    second.restore(first.state())
    with pytest.raises(TrainingError, match="diverges"):
        second.see(62, {"loss": 400.0})
    fresh = Watch(10)
    fresh.restore(Watch(10).state())
    fresh.see(1, {"loss": 5.0})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_does_what_it_did(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
):
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.agreed(3)
        signal.raise_signal(number)
        said = "stopping after this update; a second signal: without a checkpoint"
        assert said in capfd.readouterr().err  # at once, however long the update takes
        assert stop.agreed(3)
        assert stop.signal is number
        assert signal.getsignal(number) == before
    with stop_on_signals() as unasked:
        pass
    assert unasked.signal is None
    assert signal.getsignal(number) == before


class Slow:
    """A program that takes seconds to compile, in C code that answers no signals."""

    done = False

    def compile(self) -> str:
        time.sleep(0.2)  # Thread.start of Python 3.13 raises RuntimeError for a signal within it
        signal.raise_signal(signal.SIGINT)
        hashlib.pbkdf2_hmac("sha256", b"", b"salt", 2_000_000)
        self.done = True
        return "program"


def test_signals_are_answered_while_a_program_compiles(capfd: pytest.CaptureFixture[str]):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored
    slow, heard = Slow(), list[tuple[str, bool]]()
    with stop_on_signals() as stop:
        threading.Timer(0.5, lambda: heard.append((capfd.readouterr().err, slow.done))).start()
        assert compiled(slow) == "program"
    ((said, done),) = heard
    assert "stopping after this update" in said
    assert not done
    assert stop.signal is signal.SIGINT
    again = Slow()
    with pytest.raises(KeyboardInterrupt):  # as a second signal does
        compiled(again)
    assert not again.done


def test_errors_of_a_compilation_are_raised():
    class Fails:
        def compile(self) -> None:
            raise MemoryError("large")

    with pytest.raises(MemoryError, match="large"):
        compiled(Fails())


def test_one_run_holds_the_lock(tmp_path: Path):
    second = locked(tmp_path)
    with locked(tmp_path), pytest.raises(ValueError, match="another run is under way in"):
        second.__enter__()
    with locked(tmp_path):  # free again
        pass


def test_too_little_memory_says_what_needs_less(tmp_path: Path):
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
    less = "try loop.dtype bfloat16, loop.accumulate 2, or a smaller network"
    with pytest.raises(MemoryError, match=less), explained(tmp_path, Loop(batch_size=8)):
        raise full
    spent = Loop(batch_size=8, accumulate=8, remat=True, dtype="bfloat16")
    with pytest.raises(MemoryError, match="try or a smaller network"), explained(tmp_path, spent):
        raise full
    other = jax.errors.JaxRuntimeError("INTERNAL: something else")
    with pytest.raises(jax.errors.JaxRuntimeError), explained(tmp_path, Loop()):
        raise other


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOENT])
def test_too_little_room_says_that_the_run_is_kept(tmp_path: Path, number: int):
    with pytest.raises(OSError, match="the reason") as raised, explained(tmp_path, Loop()):
        raise OSError(number, "the reason")
    kept = f"{tmp_path} cannot be written to: "
    assert str(raised.value).startswith(kept) == (number != errno.ENOENT)


def test_a_trace_begins_after_ten_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    monkeypatch.setattr(jax.profiler, "start_trace", seen.append)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: seen.append("end"))
    trace = Trace(tmp_path, 5, 3)
    for step in range(5, 30):
        trace.at(step)
        seen.append(step)
    assert seen[10:15] == [str(tmp_path), 15, 16, 17, "end"]
    assert len(seen) == 27
    trace.end()
    assert len(seen) == 27
