"""`python -m weights_convert`: what it prints, its errors and its exit status."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch_files
from weights.folders import DIGITS, ROOT, WEIGHTS, component, files

from weights_convert import Part, convert, find_weights
from weights_convert.__main__ import main


def test_the_command_prints_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(DIGITS), str(tmp_path / "out"), "--to", "flax"]) == 0
    line = capsys.readouterr().out
    place = tmp_path / "out" / "unet" / "diffusion_flax_model.safetensors"
    assert line == (
        f"{DIGITS / 'unet' / WEIGHTS} -> {place}: "
        "268 tensors, 1,623,169 params, float32, 6,492,676 bytes\n"
    )


def test_a_report_of_two_dtypes() -> None:
    report = Part(
        source=Path("a"),
        destination=Path("b"),
        tensors=3,
        params=1000,
        bytes=3000,
        dtypes={"float32": 2, "bfloat16": 1},
    )
    assert str(report) == "a -> b: 3 tensors, 1,000 params, 1 bfloat16, 2 float32, 3,000 bytes"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "weights_convert", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_runs_as_a_module_and_imports_neither_jax_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys, weights_convert.__main__ as m; "
        f"m.main([{str(component(tmp_path / 'src'))!r}, 'out']); "
        "print(sorted({'jax', 'flax', 'torch', 'orbax', 'ddpm_jax'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("\n[]\n")
    again = run("src", "out", "--overwrite", "--to", "diffusers", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert find_weights(tmp_path / "out").name == WEIGHTS


def test_orbax_prints_nothing(tmp_path: Path) -> None:
    component(tmp_path / "src")
    done = run("src", "out", "--to", "orbax", cwd=tmp_path)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def evil(folder: Path) -> Path:
    pickled = torch_files.state_dict({"w": torch_files.named("posix system") + b")R"})
    return torch_files.write_zip(folder / "evil.bin", pickled, {})


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none", "out"], 1, "none does not exist"),
        (["no\nne", "out"], 1, "no ne does not exist"),
        (["src", "src"], 1, "is inside the source"),
        (["src", "there"], 1, "there exists"),
        (["src", "file/out"], 1, "file"),
        (["src", "file", "--overwrite"], 1, "file is not a folder"),
        (["evil.bin", "out"], 1, "its pickle uses posix.system"),
        (["src", "out", "--variant", "fp16"], 1, "no weights of variant 'fp16'"),
        (["src"], 2, "required: dst"),
        (["src", "out", "--to", "msgpack"], 2, "invalid choice"),
        (["src", "out", "--what"], 2, "unrecognized arguments: --what"),
    ],
)
def test_every_error_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    component(tmp_path / "src")
    convert(tmp_path / "src", tmp_path / "there")
    (tmp_path / "file").touch()
    evil(tmp_path)
    before = files(tmp_path)
    monkeypatch.chdir(tmp_path)
    try:
        found = main(arguments)
    except SystemExit as left:
        found = left.code
    printed = capsys.readouterr()
    assert found == status
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert files(tmp_path) == before


def test_an_interrupt_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def torn(*_: Any, **__: Any) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["weights_convert.convert"], "write_flax", torn)
    assert main([str(DIGITS), str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "error: interrupted; nothing was written\n"
    assert not list(tmp_path.iterdir())


def can_write_anywhere() -> bool:
    return not hasattr(os, "geteuid") or os.geteuid() == 0


@pytest.mark.skipif(can_write_anywhere(), reason="root may write to read-only folders")
def test_a_read_only_destination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = component(tmp_path / "src")
    (tmp_path / "closed").mkdir(mode=0o555)
    assert main([str(source), str(tmp_path / "closed" / "out")]) == 1
    assert "Permission denied" in capsys.readouterr().err
    assert not files(tmp_path / "closed")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_a_file_system_without_new_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(component(tmp_path / "src")), "/proc/self/out"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
