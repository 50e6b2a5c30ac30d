"""The benchmark of samplers, on few images: an interrupted measurement goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import samplers

FEW = ["--images", "150", "--samplers", "ddim", "--evaluations", "2", "--reference-steps", "2"]


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(samplers, "KEEP_EVERY", 0)
    for name, value in {"BATCH": 60, "COMPARED": 60, "ROUNDS": 1}.items():
        monkeypatch.setattr(samplers, name, value)
    judge = samplers.Judge(samplers.real_digits())
    monkeypatch.setattr(samplers, "Judge", lambda _digits: judge)
    samples = samplers.Samples("digits", 150, 0)  # one model is compiled once
    monkeypatch.setattr(samplers, "Samples", lambda *_given: samples)
    drawn: list[int] = []
    batch = samples.batch

    def counted(table: Any, keys: Any) -> Any:
        drawn.append(len(keys))
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return batch(table, keys)

    monkeypatch.setattr(samples, "batch", counted)
    out = tmp_path / "samplers.json"
    argv = [*FEW, "--also", "--out", str(out)]
    with pytest.raises(KeyboardInterrupt):
        samplers.main(argv)
    assert not out.exists()
    assert samplers.main(argv) == 0
    # The long run's, and two batches before the end; that again, and what was left.
    assert drawn == [60, 60, 60, 30] + [60, 30]
    assert [file.name for file in tmp_path.glob("*.npy")] == []
    found = json.loads(out.read_text())["results"]["ddim"]["2"]
    assert samplers.main([*argv[:-1], str(tmp_path / "whole.json")]) == 0
    whole = json.loads((tmp_path / "whole.json").read_text())["results"]["ddim"]["2"]
    assert found == whole
    before = len(drawn)
    assert samplers.main(argv) == 0
    assert len(drawn) == before  # what is there is not measured again
    document = json.loads(out.read_text())
    source, cpu = document["source"], document["machine"]["cpu"]
    assert samplers.processors(document) == cpu == found["cpu"]
    document["machine"]["cpu"] = "another"
    assert samplers.processors(document) == f"another; ddim on {cpu}"
    kept = samplers._kept(out, source, "ddim", found["table"])
    kept.touch()
    assert samplers.main([*argv, "--time"]) == 0
    assert kept.exists()  # of a measurement that was interrupted
    assert json.loads(out.read_text())["results"]["ddim"]["2"]["seconds"] > 0
