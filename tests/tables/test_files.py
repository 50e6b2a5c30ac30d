"""Tables as JSON: exact, readable, and checked."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import ddpm_jax as dj
from tests.schedulers.matrix import FAMILIES

OTHERS = (
    dj.DDPMScheduler(variance_type="learned_range", clip_sample_range=2.5).table(7),
    dj.DDIMScheduler(thresholding=True).table(5, dtype=np.float64),
    dj.DDIMScheduler(clip_sample=False).table(1),
)


@pytest.mark.parametrize(
    "table", [*(family.cls().table(6) for family in FAMILIES), *OTHERS], ids=lambda _: ""
)
def test_every_bit_comes_back(table: dj.Table, tmp_path: Path) -> None:
    dj.save_table(tmp_path / "a.json", table)
    back = dj.load_table(tmp_path / "a.json")
    assert jax.tree.structure(back) == jax.tree.structure(table)
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(table), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_a_person_can_read_it(tmp_path: Path) -> None:
    """Shortest decimals, one line a row, and the description."""
    file = tmp_path / "a.json"
    dj.save_table(file, dj.DDIMScheduler().table(2), description="two steps of DDIM")
    text = file.read_text()
    assert "two steps of DDIM" in text
    rows = [line for line in text.splitlines() if "timestep" in line]
    assert [json.loads(row.rstrip(","))["timestep"] for row in rows] == [500.0, 0.0]
    assert '"level": [0.99995, 0.01]' in rows[1]


def test_only_one_whole_finite_table_is_saved(tmp_path: Path) -> None:
    table = dj.DDIMScheduler().table(3)
    with pytest.raises(ValueError, match="stack of tables"):
        dj.save_table(tmp_path / "a.json", dj.stack([table, table]))
    broken = dataclasses.replace(table, in_scale=np.array([1, np.nan, 1], np.float32))
    with pytest.raises(ValueError, match="not finite"):
        dj.save_table(tmp_path / "a.json", broken)
    with pytest.raises(ValueError, match="guidance_scale must be finite"):
        dj.save_table(tmp_path / "a.json", table, guidance_scale=np.inf)
    assert not list(tmp_path.iterdir())


def edited(tmp_path: Path, edit: Any) -> Path:
    file = tmp_path / "a.json"
    dj.save_table(file, dj.DDIMScheduler().table(2))
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return file


def change(path: tuple[Any, ...], value: Any) -> Any:
    def edit(content: Any) -> None:
        *way, last = path
        for step in way:
            content = content[step]
        if value is None:
            del content[last]
        else:
            content[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change(("format",), "other"), "format"),
        (change(("rows",), []), "one or more"),
        (change(("dtype",), "float16"), "dtype"),
        (change(("refine",), {"type": "Clamp"}), "Clip, DynamicThreshold"),
        (change(("refine", "limit"), "one"), "limit"),
        (change(("refine", "limits"), 1.0), "refine has limits"),
        (change(("rows", 1, "in_scale"), None), "row 1 lacks in_scale"),
        (change(("rows", 0, "noise"), 0.1), "row 0 has noise"),
        (change(("rows", 1, "noise_scale"), 0.1), "row 1 has other entries"),
        (change(("rows", 1, "level"), [1.0]), r"level of row 1 .*shape \(2,\)"),
        (change(("rows", 1, "timestep"), float("nan")), "timestep of row 1"),
        (change(("rows", 1, "mix"), [[1.0, 2.0]]), "mix of row 1"),
        (change(("rows", 0, "mix"), [1.0, 2.0, 3.0]), "list of lists"),
        (change(("rows", 0, "mix"), [[1.0, 2.0, 3.0], [1.0]]), "mix of row 0"),
        (change(("init_scale",), [1.0]), "init_scale"),
        (change(("guidance_scale",), "three"), "guidance_scale must be finite"),
        (change(("init_scale",), -1.0), '"init_scale" must be at least 0'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_faults_are_named(tmp_path: Path, edit: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        dj.load_table(edited(tmp_path, edit))
    assert "a.json" in str(error.value)


def test_mixes_that_do_not_fit_the_refinement(tmp_path: Path) -> None:
    def edit(content: Any) -> None:
        content["refine"] = None

    with pytest.raises(ValueError, match=r"m rows of m \+ 1 numbers"):
        dj.load_table(edited(tmp_path, edit))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        dj.load_table(tmp_path / "none.json")
