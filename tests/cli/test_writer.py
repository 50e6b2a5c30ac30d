"""Files are written beside computing: order, back pressure, errors, what an interrupt leaves."""

import threading
from pathlib import Path

import numpy as np
import pytest
from cli.sampling import names, sample
from PIL import Image

from ddpm_jax.cli import writer
from ddpm_jax.cli.drawing import Drawing
from ddpm_jax.cli.image_files import SampledImage
from ddpm_jax.cli.writer import Writer


def batch(number: int) -> list[SampledImage]:
    return [SampledImage(number, np.zeros((1, 1, 1), np.uint8), ())]


def test_batches_are_written_in_order_by_another_thread():
    seen: list[tuple[int, bool]] = []
    here = threading.get_ident()
    with Writer(lambda one: seen.append((one[0].number, threading.get_ident() == here))) as found:
        for number in range(5):
            found.put(batch(number))
    assert seen == [(number, False) for number in range(5)]


def test_computing_goes_on_while_a_batch_is_written():
    """And waits when one more batch waits than `WAITING`."""
    go, begun = threading.Event(), threading.Event()

    def save(_batch: object) -> None:
        begun.set()
        assert go.wait(60)

    with Writer(save) as found:
        for number in range(1 + writer.WAITING):
            found.put(batch(number))  # would never return if it waited for the end
        assert begun.wait(60)
        more = threading.Thread(target=found.put, args=(batch(9),))
        more.start()
        more.join(0.2)
        assert more.is_alive()
        go.set()
        more.join(60)
        assert not more.is_alive()


@pytest.mark.parametrize("late", [False, True])
def test_an_error_of_writing_is_raised(late: bool):
    """By the next batches, or at the end."""

    def save(_batch: object) -> None:
        raise OSError("disk full")

    def run(batches: int) -> None:
        with Writer(save) as found:
            for number in range(batches):
                found.put(batch(number))

    with pytest.raises(OSError, match="disk full"):
        run(1 if late else 9)


def test_what_is_computed_is_kept_after_an_interrupt():
    written: list[int] = []

    def run() -> None:
        with Writer(lambda one: written.append(one[0].number)) as found:
            found.put(batch(0))
            found.put(batch(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert written == [0, 1]


def test_the_command_reports_a_full_disk(
    tiny: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    """One line, no half file."""

    def half(_self: Image.Image, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    assert sample(tiny, tmp_path / "out", "--num", "4") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "ddpm-jax: disk full"
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("out", "said", "kept"),
    [
        ("out", "run the same command again", ["00000.png", "00001.png"]),
        ("a.png", "interrupted; nothing was written", []),
    ],
)
def test_the_command_keeps_what_was_computed_before_an_interrupt(
    out: str,
    said: str,
    kept: list[str],
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Ctrl-C in the second batch: the first is in a folder, and no file of a grid."""
    original, calls = Drawing._batch, []

    def stopped(self: Drawing, *arguments: object) -> list[SampledImage]:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Drawing, "_batch", stopped)
    assert sample(tiny, tmp_path / out, "--num", "6") == 130
    assert said in capsys.readouterr().err
    assert names(tmp_path / out if kept else tmp_path) == kept
