"""`python -m weights_convert`: what it prints, its errors and its exit status."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch_files
from weights.folders import DIGITS, ROOT, WEIGHTS, component, files

from weights_convert import convert
from weights_convert.__main__ import main
from weights_convert.files import FLAX_FILE


def run(cwd: Path, *arguments: str) -> str:
    """What a process of Python prints, which prints no warning."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_it_runs_as_a_module_and_imports_neither_jax_nor_torch(tmp_path: Path) -> None:
    component(tmp_path / "src")
    code = (
        "import sys, weights_convert.__main__ as m; m.main(['src', 'out']); "
        "print(sorted({'jax', 'flax', 'torch', 'orbax', 'ddpm_jax'} & set(sys.modules)))"
    )
    size = "2 tensors, 30 params, float32, 120 bytes"
    place = tmp_path / "out"
    summary = f"src/{WEIGHTS} -> {place / FLAX_FILE}: {size}\n"
    assert run(tmp_path, "-c", code) == f"{summary}[]\n"
    options = ["src", "out", "--overwrite", "--to", "diffusers"]
    summary = f"src/{WEIGHTS} -> {place / WEIGHTS}: {size}\n"
    assert run(tmp_path, "-m", "weights_convert", *options) == summary


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
    evil = torch_files.state_dict({"w": torch_files.named("posix system") + b")R"})
    torch_files.write_zip(tmp_path / "evil.bin", evil, {})
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
