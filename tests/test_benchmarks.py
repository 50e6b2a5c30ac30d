"""The benchmarks: their arithmetic on made-up counters, and a fast run from end to end."""

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import pytest
from benchmark_results import ENTRY, MACHINE, made_up

import ddpm_jax as dj
from benchmarks import load, machine, measure, report, sampling, store, tables, worker
from benchmarks.client import Worker, WorkerError
from benchmarks.contenders import PARTS
from benchmarks.models import MODELS, Configuration, configurations

TINY = Configuration(part="sampling", model="tiny", batch=2, precision="float32", device="cpu")


def result(share: float | None = 0.0, rounds: int = 9, **changes: Any) -> dict[str, Any]:
    """A made-up result: we take 1 s, diffusers 2 s."""
    configuration = Configuration(
        part="sampling", model="cifar10", batch=1, precision="float32", device="cpu"
    )
    taken = made_up(configuration, {"ddpm_jax": 1.0, "diffusers": 2.0}, rounds)
    taken["contenders"]["diffusers"] = ENTRY | {"difference": {"output": 1e-6}}
    taken["contenders"]["torch.compile"] = {"error": "InvalidCxxCompiler: no g++"}
    return {**taken, "others_share": share, **changes}


@pytest.mark.parametrize(
    ("model", "count"), [("cifar10", 35_746_307), ("cat256", 113_673_219)], ids=str
)
def test_the_networks_have_the_checkpoints_numbers_of_params(model: str, count: int) -> None:
    shapes = dj.UNet2DModel.from_config(MODELS[model]).shapes()
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_a_gpu_run_covers_both_networks_and_precisions() -> None:
    chosen = {(c.model, c.batch, c.precision) for c in configurations("gpu", ("sampling",))}
    sizes = {("cifar10", b) for b in (1, 64, 256)} | {("cat256", b) for b in (4, 16)}
    assert chosen == {(*size, p) for size in sizes for p in ("float32", "bfloat16")}


def test_costs_are_measured_at_the_smallest_batch() -> None:
    chosen = list(configurations("cpu", ("costs",), batches=(16, 4)))
    assert [c.batch for c in chosen] == [4]


def fake_proc(folder: Path, busy: int, own: dict[int, tuple[int, str]]) -> Path:
    """A /proc with `busy` ticks, half of them stolen, and processes {pid: (parent, ticks)}."""
    folder.mkdir()
    idle, half = 123456, busy // 2
    (folder / "stat").write_text(f"cpu  {busy - half} 0 0 {idle} {idle} 0 0 {half} 7 7\ncpu0 9\n")
    for pid, (parent, ticks) in own.items():
        (folder / str(pid)).mkdir()
        head = f"{pid} (a ) name) S {parent} " + " ".join("0" * 9)
        (folder / str(pid) / "stat").write_text(f"{head} {ticks} 20 0 77 78\n")
    return folder


def test_others_are_what_is_busy_and_not_the_family(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    none, some = "0 0 0 0", f"{tick} {tick} {tick} {tick}"  # user system, waited-for children's
    before = fake_proc(tmp_path / "a", 0, {10: (1, none), 11: (10, none), 12: (1, none)})
    after = fake_proc(tmp_path / "b", 10 * tick, {10: (1, none), 11: (10, some), 12: (1, some)})
    stretch = (load.snapshot(10, before), load.snapshot(10, after), 6.0)
    # Of 10 busy seconds 4 were the child's; 6 of 12 seconds of two cores remain.
    assert load.others_share([stretch], cores=2) == pytest.approx(0.5)


def test_the_load_is_unknown_where_there_is_no_proc(tmp_path: Path) -> None:
    assert load.snapshot(1, tmp_path) is None
    assert load.others_share([(None, None, 1.0)], cores=2) is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc")
def test_own_time_is_counted_as_own() -> None:
    before = load.snapshot()
    began = time.process_time()
    while time.process_time() - began < 0.2:
        pass
    after = load.snapshot()
    assert before is not None
    assert after is not None
    assert 0.15 < after.own - before.own < 0.3  # ticks of 0.01 s, and a little for the rest
    assert after.busy - before.busy >= 0.15


def test_ratios_are_taken_within_rounds() -> None:
    rounds = [{"ddpm_jax": t, "diffusers": 1.5 * t} for t in (1.0, 5.0, 2.0, 9.0)]
    assert tables.ratio(result(rounds=4) | {"rounds": rounds}, "diffusers") == (1.5, 1.5, 1.5)


def test_a_spread_is_a_median_between_quartiles() -> None:
    assert tables.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0)
    assert tables.spread([7.0]) == (7.0, 7.0, 7.0)


def test_a_report_says_what_was_measured_and_what_failed() -> None:
    text = report.markdown({"machine": MACHINE, "configurations": [result()]})
    lines = text.splitlines()
    assert (
        "| cifar10 | 1 | float32 | ddpm_jax | 10 |  |  | 3.0 (target under 5, met) | 1.00 | 0 % |"
        in lines
    )
    assert (
        "| cifar10 | 1 | float32 | diffusers | 5 | 2 (2 to 2) | 1.05, met | 3.0 | 1.00 | 0 % |"
        in lines
    )
    assert "not measured: InvalidCxxCompiler: no g++" in text
    assert "not idle" not in text


@pytest.mark.parametrize(
    ("doubtful", "told"),
    [
        (result(share=0.3), "The machine was not idle in 1 of 1"),
        (result(share=None), "is not known"),
        (result(rounds=3), "Fewer than 9 rounds (3)"),
        (result(model="tiny"), "Fast mode"),
    ],
    ids=["busy", "unknown", "few", "fast"],
)
def test_doubtful_figures_are_marked_and_not_judged(doubtful: dict[str, Any], told: str) -> None:
    text = report.markdown({"machine": MACHINE, "configurations": [doubtful]})
    assert told in text
    assert ", met" not in text


def test_costs_are_shares_of_the_loop_below() -> None:
    times = {"network": 1.0, "loop": 1.02, "pipeline": 1.0, "pipeline and bar": 1.02}
    costs = result() | {"part": "costs", "rounds": [times] * 9}
    text = report.markdown({"machine": MACHINE, "configurations": [costs]})
    assert "| loop over network | 2.0 % (2.0 to 2.0) | at most 3 %, met | 0 % |" in text
    assert "| bar over pipeline | 2.0 % (2.0 to 2.0) | at most 1 %, missed | 0 % |" in text


def test_results_of_another_machine_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    store.write(path, json.dumps({"machine": MACHINE, "configurations": []}))
    assert store.opened(path, MACHINE)["machine"] == MACHINE
    with pytest.raises(ValueError, match=r"another machine.*cores: 2, now 4"):
        store.opened(path, MACHINE | {"cores": 4})
    assert store.opened(path, MACHINE | {"cores": 4}, fresh=True)["configurations"] == []
    path.write_text("[]")
    with pytest.raises(ValueError, match="not a results file"):
        store.opened(path, MACHINE)


def test_a_result_counts_only_for_the_same_code_and_options() -> None:
    taken = result(rounds=2) | TINY.as_dict()
    document = store.add({"machine": MACHINE, "configurations": [result()]}, TINY, taken)
    assert store.find(document, TINY, "abc", {"rounds": 2}) is taken
    assert store.find(document, TINY, "abd", {"rounds": 2}) is None
    assert store.find(document, TINY, "abc", {"rounds": 3}) is None
    again = store.add(document, TINY, taken | {"params": 6})
    assert [entry["params"] for entry in again["configurations"]] == [5, 6]


def test_a_change_of_any_source_changes_the_digest(tmp_path: Path) -> None:
    file = tmp_path / "ddpm_jax" / "deep" / "a.py"
    file.parent.mkdir(parents=True)
    file.write_text("a = 1\n")
    before = machine.digest(tmp_path)
    assert machine.digest(tmp_path) == before
    file.write_text("a = 2\n")
    assert machine.digest(tmp_path) != before


def test_the_order_turns() -> None:
    assert [list(measure.turned(["a", "b", "c"], i)) for i in (0, 1, 5)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
    ]


class Broken:
    """A runner that answers one request and fails another."""

    def load(self) -> dict[str, str]:
        return {"jax": "1"}

    def first(self) -> float:
        raise RuntimeError("\nno compiler\nmore about it")


def test_a_worker_answers_errors_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    answers = io.StringIO()
    runner: Any = Broken
    worker.serve(runner, io.StringIO('["load", []]\n["first", []]\n'), answers)
    told = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert told == [{"value": {"jax": "1"}}, {"error": "RuntimeError: no compiler"}]
    assert "Traceback" in capsys.readouterr().err


def test_a_worker_that_ends_says_why() -> None:
    nowhere = {"PYTHONHOME": "/nowhere"}  # Python does not start with it
    with (
        Worker({}, nowhere, limit=60) as bad,
        pytest.raises(WorkerError, match=r"code 1: .*Python"),
    ):
        bad.ask("load")


def test_a_request_has_a_limit() -> None:
    spec = {"library": "jax", "task": "sampling", "folder": "", "config": {}}
    spec |= {"precision": "", "device": "", "batch": 1}
    with Worker(spec, {}, limit=0.01) as slow, pytest.raises(WorkerError, match="longer than"):
        slow.ask("load")


def test_a_fast_run_writes_a_table_and_is_taken_up_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--fast", "--against", "--parts", "costs", "--out", str(tmp_path / "fast")]
    assert sampling.main(arguments) == 0
    (costs,) = json.loads((tmp_path / "fast.json").read_text())["configurations"]
    assert len(costs["rounds"]) == 2
    assert set(costs["rounds"][0]) == set(PARTS["costs"].loops)
    text = (tmp_path / "fast.md").read_text()
    assert capsys.readouterr().out.rstrip() == text.rstrip()
    assert "loop over network" in text

    assert sampling.main(arguments) == 0
    assert "there already" in capsys.readouterr().err
    assert json.loads((tmp_path / "fast.json").read_text())["configurations"] == [costs]


@pytest.mark.parity
def test_a_fast_run_beside_diffusers_computes_the_same(tmp_path: Path) -> None:
    out = tmp_path / "fast"
    arguments = ["--fast", "--against", "diffusers", "--parts", "sampling", "--out", str(out)]
    assert sampling.main(arguments) == 0
    (taken,) = json.loads(out.with_suffix(".json").read_text())["configurations"]
    apart = taken["contenders"]["diffusers"]["difference"]
    assert 0 < max(apart.values()) < 2e-5  # float32, as everywhere
    assert "error" not in taken["contenders"]["diffusers"]
