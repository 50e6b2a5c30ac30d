"""`ddpm-jax learn`, and the tables that `sample` and `describe` take from files and models."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cli.sampling import complaint, has_images, names, sample

import ddpm_jax as dj
from ddpm_jax.cli import learn as command
from ddpm_jax.cli import main
from ddpm_jax.cli.provenance import read_png
from ddpm_jax.learning import learn
from ddpm_jax.learning.subjects import unconditional
from ddpm_jax.pipelines.unconditional import DDIMPipeline
from ddpm_jax.tables.files import guidance_of

FEW = "--evaluations 2 --teacher-steps 6 --images 8 --updates 3 --batch-size 4 --no-cache".split()


@pytest.fixture(scope="module")
def learned(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables") / "new" / "two.json"
    assert main(["learn", "--model", str(tiny), "--out", str(out), *FEW]) == 0
    return out


def run(out: Path, *argv: str) -> int:
    return main(["sample", "--no-cache", "--out", str(out), "--num", "2", *argv])


def equal(one: dj.Table, other: dj.Table, rtol: float = 0, atol: float = 0) -> None:
    """Asserts that all numbers of two tables are equal."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def test_the_table_is_what_learn_table_gives(tiny: Path, learned: Path) -> None:
    assert names(learned.parent) == ["two.json"]  # the run's state is gone
    pipe = DDIMPipeline.from_pretrained(tiny)
    start, teacher = (
        cls.from_config(pipe.scheduler.config, timestep_spacing="trailing")
        for cls in (dj.UniPCMultistepScheduler, dj.DPMSolverMultistepScheduler)
    )
    keys = dj.sample_keys(jax.random.key(0), 8)
    subject = unconditional(pipe, keys)
    table = dj.learn_table(
        subject.denoise,
        subject.params,
        start.table(2, grid="dmn"),
        teacher.table(6),
        keys,
        (8, 8, 1),
        3,
        batch_size=4,
        learning_rate=0.02,
        progress=False,
    )
    equal(dj.load_table(learned), table, rtol=2e-4, atol=1e-6)


def test_it_starts_from_a_grid_by_name(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "start.json"
    argv = ["learn", "--model", str(tiny), "--out", str(out), *FEW, "--updates", "0"]
    assert main([*argv, "--start", "dpm-solver-multistep", "--grid", "rho"]) == 0
    scheduler = dj.DPMSolverMultistepScheduler.from_pretrained(tiny)
    for name in ("timestep", "level"):
        found, expected = (
            getattr(table, name) for table in (dj.load_table(out), scheduler.table(2, grid="rho"))
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert "dpm-solver-multistep on rho, learned towards 6 steps" in out.read_text()


def test_sample_runs_a_file(tiny: Path, learned: Path, tmp_path: Path, capsys: Any) -> None:
    argv, out = ("--model", str(tiny), "--table", str(learned)), tmp_path / "images"
    assert run(out, *argv) == 0
    assert "2/2" in capsys.readouterr().err
    pipe = DDIMPipeline.from_pretrained(tiny)
    call: dict[str, Any] = {"table": dj.load_table(learned), "progress": False}
    assert has_images(out, pipe(jax.random.key(0), batch_size=2, **call).images)
    text = read_png(out / "00000.png")
    assert text["table"] == str(learned)
    assert len(text["table_sha256"]) == 64
    assert "scheduler" not in text


def test_a_models_own_learned_table(tiny: Path, learned: Path, tmp_path: Path, capsys: Any) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    argv = f"sample --no-cache --model {model} --scheduler learned --steps 2 --out {tmp_path}/a.png"
    assert "no learned tables" in complaint(argv, capsys, 2)
    (model / "tables").mkdir()
    shutil.copy(learned, model / "tables" / "learned-2.json")
    assert main(argv.split()) == 0
    text = read_png(tmp_path / "a.png")
    assert (text["scheduler"], text["steps"]) == ("learned", "2")
    assert "2 evaluations, got 3" in complaint(argv.replace("2 --out", "3 --out"), capsys, 2)
    assert main(["describe", "--scheduler", "learned", "--steps", "2", "--model", str(model)]) == 0
    assert capsys.readouterr().out.startswith("2 network evaluations")
    assert "pass --model" in complaint("describe --scheduler learned --steps 2", capsys, 2)


def test_options_beside_a_table_are_refused(tiny: Path, learned: Path, capsys: Any) -> None:
    base = f"sample --no-cache --out a.png --model {tiny} --table {learned} "
    for option in ("--steps 7", "--eta 0.5", "--grid rho", "--scheduler pndm", "--set s_churn=1"):
        assert option.split()[0] in complaint(base + option, capsys, 2)
    assert "--image" in complaint(base + "--image a.png", capsys, 2)


def test_tables_of_other_models_are_refused(tiny: Path, tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "edm.json"
    dj.save_table(other, dj.EDMEulerScheduler().table(3))
    argv = f"sample --no-cache --out a.png --model {tiny} --table {other}"
    assert "another model" in complaint(argv, capsys, 2)
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    assert "format" in complaint(argv.replace(str(other), str(broken)), capsys, 2)


def test_named_grids(tiny: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "a.png"
    assert sample(tiny, out, "--grid", "rho", "--num", "1") == 0
    assert read_png(out)["grid"] == "rho"
    argv = f"sample --no-cache --out {out} --model {tiny} --grid ays-sd15"
    assert "largest sigma" in complaint(argv, capsys, 2)


def test_where_the_table_goes_is_seen_before_the_longer_run(
    tiny: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(command.Learn, "_learn", None)
    (tmp_path / "file").touch()
    argv = f"learn --model {tiny} --out {tmp_path}/file/a.json {' '.join(FEW)}"
    assert "file is a file, not a folder" in complaint(argv, capsys, 1)


def test_interrupted_runs_go_on(
    tiny: Path, learned: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    out = tmp_path / "two.json"
    argv = ["learn", "--model", str(tiny), "--out", str(out), *FEW]
    update, calls = learn._update, []

    def third_stops(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return update(*given)

    monkeypatch.setattr(learn, "_update", third_stops)
    assert main(argv) == 130
    assert "repeat the command" in capsys.readouterr().err
    assert names(tmp_path) == ["two.state.npz"]
    assert main(argv) == 0
    assert len(calls) == 4  # two updates, one that was stopped, and the third
    assert names(tmp_path) == ["two.json"]
    equal(dj.load_table(out), dj.load_table(learned))


def test_options_of_other_models_are_refused(tiny: Path, prompted: Path, capsys: Any) -> None:
    assert "--prompt" in complaint(f"learn --model {prompted}", capsys, 2)
    assert "no model of text" in complaint(f"learn --model {tiny} --prompt a", capsys, 2)
    assert "--guidance" in complaint(f"learn --model {tiny} --guidance 3", capsys, 2)
    assert "--labels" in complaint(f"learn --model {prompted} --prompt a --labels 1", capsys, 2)


@pytest.mark.slow  # tests/learning/test_subjects.py holds that these are the pipelines' networks
def test_classes_and_prompts(classes: Path, prompted: Path, tmp_path: Path) -> None:
    """With classes, and with prompts under guidance: each learns, and its table runs."""
    out = tmp_path / "a.json"
    for given in (
        [str(classes), "--labels", "0", "2"],
        [str(prompted), "--prompt", "a cat", "a dog", "--guidance", "3"],
    ):
        assert main(["learn", *FEW, "--out", str(out), "--model", *given]) == 0
        assert run(tmp_path / f"{len(given)}.png", "--table", str(out), "--model", *given) == 0
    assert guidance_of(out) == 3


def test_wrong_options_are_refused(tiny: Path, capsys: Any) -> None:
    base = f"learn --model {tiny} "
    for option in ("--evaluations 0", "--images 1", "--learning-rate 0", "--out a.txt"):
        assert option.split()[0] in complaint(base + option, capsys, 2)
    assert "one row a step" in complaint(base + "--start heun --grid None", capsys, 2)
    assert "Without a grid: --grid None" in complaint(base + "--grid ays-sd15", capsys, 2)
    assert "deterministic" in complaint(base + "--start ddpm", capsys, 2)
    assert "class" in complaint(base + "--labels 1", capsys, 2)
