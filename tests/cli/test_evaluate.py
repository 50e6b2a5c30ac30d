"""`ddpm-jax evaluate` with the features of digits, which need no download."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cli.sampling import complaint, sample, save_tiny
from PIL import Image
from pipelines.models import edit

import ddpm_jax as dj
from ddpm_jax.cli import evaluated, main
from ddpm_jax.cli.asked import Denoiser
from ddpm_jax.evaluation.digits import real_digits
from ddpm_jax.evaluation.levels import from_uint8
from ddpm_jax.training.data import Data

ALL = "fid,kid,is,pr"
SMALL = ("--metric-options", "kid.subset_size=20", "kid.subsets=5")


def digits(n: int, first: int = 0) -> np.ndarray:
    rows = real_digits().images[first : first + n].reshape(-1, 8, 8, 1)
    return (rows * 255).round().astype(np.uint8)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """60 real digits in one file."""
    np.savez(tmp_path / "real.npz", images=digits(60))
    return tmp_path / "real.npz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 others as PNG files."""
    out = tmp_path / "made"
    out.mkdir()
    for number, image in enumerate(digits(40, 1000)):
        Image.fromarray(image[..., 0]).save(out / f"{number:05d}.png")
    return out


def evaluate(name: object, out: Path, *argv: str, metrics: str = ALL) -> dict[str, Any]:
    """Runs the command, and returns its record."""
    always = f"evaluate {name} --features digits --metrics {metrics} --no-cache --out {out}"
    assert main([*always.split(), *argv]) == 0
    return json.loads(out.read_text())


def test_a_folder_against_a_file(
    folder: Path,
    real: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    count_compilations: Callable[[], AbstractContextManager[Any]],
) -> None:
    """The numbers are those of the functions, and the record says what they are of. A second run
    compiles nothing.
    """
    given = ("--against", str(real), *SMALL)
    found = evaluate(folder, tmp_path / "r.json", *given)
    made, of = (
        dj.collect_features(dj.digits_features(), [x]) for x in (digits(40, 1000), digits(60))
    )
    assert made.statistics is not None
    assert of.statistics is not None
    kid, kid_std = dj.kernel_distance(made.features, of.features, subsets=5, subset_size=20)
    score, std = dj.inception_score(made.logits)
    precision, recall = dj.precision_recall(made.features, of.features)
    numbers = {
        "fid": {"fid": dj.frechet_distance(made.statistics, of.statistics)},
        "kid": {"kid": kid, "kid_std": kid_std},
        "is": {"is": score, "is_std": std},
        "pr": {"precision": precision, "recall": recall},
    }
    for metric, wanted in numbers.items():
        assert found["metrics"][metric] == pytest.approx(wanted, rel=1e-4), metric
    assert found["samples"] | {"files": ""} == {
        "data": str(folder), "files": "", "count": 40, "shape": [8, 8, 1],
    }  # fmt: skip
    assert (found["reference"]["data"], found["reference"]["count"]) == (str(real), 60)
    assert found["options"]["kid"] == {"subsets": 5, "subset_size": 20, "seed": 2020}
    assert found["features"]["network"] == "digits"
    assert len(found["features"]["weights"]) == 64
    assert found["versions"]["numpy"] == np.__version__
    printed = capsys.readouterr().out
    assert f"kid          {found['metrics']['kid']['kid']:.6g} ± " in printed
    assert "The fid of 40 images is too large" in printed
    assert str(tmp_path / "r.json") in printed
    with count_compilations() as compiled:
        assert evaluate(folder, tmp_path / "r.json", *given)["metrics"] == found["metrics"]
    assert compiled.count == 0


def test_a_model_has_the_numbers_of_its_folder(tiny: Path, real: Path, tmp_path: Path) -> None:
    """Image i of a seed is the same, drawn here or by `sample`, as PNG files or as shards."""
    run = ("--seed", "3", "--eta", "0.5")
    assert sample(tiny, tmp_path / "png", "--num", "10", *run, batch=4) == 0
    shards = ("--format", "npz", "--shard-size", "6")
    assert sample(tiny, tmp_path / "npz", "--num", "10", *run, *shards, batch=4) == 0
    given = ("--against", str(real))
    of_files = [
        evaluate(tmp_path / name, tmp_path / "r.json", *given, metrics="fid,pr")
        for name in ("png", "npz")
    ]
    drawn = ("--num", "10", "--steps", "3", "--batch-size", "4", *run)
    of_model = evaluate(tiny, tmp_path / "r.json", *given, *drawn, metrics="fid,pr")
    for one in of_files:
        assert one["samples"]["count"] == 10
        for name, numbers in of_model["metrics"].items():
            assert one["metrics"][name] == pytest.approx(numbers, rel=1e-5)
    settings = of_model["samples"]
    assert (settings["seed"], settings["steps"], settings["count"]) == ("3", "3", 10)
    assert len(settings["weights"]) == 64
    assert settings["shape"] == [8, 8, 1]


def test_saved_statistics_give_the_same_fid(folder: Path, real: Path, tmp_path: Path) -> None:
    stats = tmp_path / "stats.npz"
    given = ("--against", str(real), "--save-stats", str(stats))
    # Statistics are saved even where no metric needs them.
    evaluate(folder, tmp_path / "k.json", *given, *SMALL, metrics="kid")
    direct = evaluate(folder, tmp_path / "a.json", "--against", str(real), metrics="fid")
    found = evaluate(folder, tmp_path / "b.json", "--against", str(stats), metrics="fid")
    assert found["metrics"]["fid"]["fid"] == pytest.approx(direct["metrics"]["fid"]["fid"])
    assert found["reference"] == {"statistics": str(stats), "count": 60}


def test_num_takes_the_first_images(folder: Path, real: Path, tmp_path: Path) -> None:
    found = evaluate(folder, tmp_path / "r.json", "--num", "15", metrics="is")
    logits = dj.collect_features(dj.digits_features(), [digits(15, 1000)]).logits
    assert found["samples"]["count"] == 15
    assert "reference" not in found
    assert found["metrics"]["is"]["is"] == pytest.approx(dj.inception_score(logits)[0], rel=1e-4)


def test_floats_are_rounded_to_pixels(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", digits(40, 1000) / np.float32(255))
    found = [
        evaluate(name, tmp_path / "r.json", metrics="is")
        for name in (folder, tmp_path / "floats.npy")
    ]
    assert found[0]["metrics"] == found[1]["metrics"]


@pytest.fixture
def places(tiny: Path, folder: Path, real: Path, tmp_path: Path) -> dict[str, Path]:
    """What the words of the refused command lines stand for."""
    found = {"TINY": tiny, "MADE": folder, "REAL": real}
    found |= {name: tmp_path / f"{name.lower()}.npz" for name in ("STATS", "OTHER", "FAR")}
    found |= {name: tmp_path / f"{name.lower()}.npy" for name in ("COLOUR", "LARGE")}
    np.save(found["COLOUR"], np.zeros((3, 8, 8, 3), np.uint8))
    np.save(found["LARGE"], np.zeros((3, 9, 9, 1), np.uint8))
    np.savez(found["FAR"], images=digits(2), labels=np.array([0, 11]))
    dj.Statistics.of(np.eye(3)).save(found["STATS"])
    dj.Statistics.of(np.eye(64), "inception 1234 clean-fid").save(found["OTHER"])
    return found


def refused(argv: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> str:
    words = [str(places.get(word, word)) for word in argv.split()]
    return complaint(f"evaluate {' '.join(words)} --no-cache", capsys, 2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("MADE --against REAL --metrics fid,ppl", "more of fid, kid, is, pr, nll with commas"),
        ("MADE --against REAL --metrics fid,fid", "each once"),
        ("MADE --against REAL --metric-options kid.subsets=3", "takes, of fid, none"),
        ("MADE --against REAL --metrics kid --metric-options kid.subsets=a", "be a whole number"),
        ("MADE --against REAL --metrics kid", "kid needs 1000 samples for its subsets, got 40"),
        ("MADE", "fid needs --against with the real images"),
        ("MADE --metrics is --against REAL", "--against is not used by is"),
        ("MADE --metrics is --resolution 8", "--resolution needs --against"),
        ("MADE --against REAL --resize clean-fid", "--resize is of --features inception"),
        ("MADE --against REAL --num 41", "has 40 images, not 41: pass a smaller --num"),
        ("MADE --against REAL --steps 5 --seed 1", "--steps is of a model, and"),
        ("MADE --against REAL --out r.txt", "--out must end in .json, got r.txt"),
        ("MADE --against REAL --save-stats r.npy", "--save-stats must end in .npz, got r.npy"),
        ("MADE --against REAL --batch-size 0", "--batch-size must be at least 1"),
        ("TINY --against REAL", "is a model: pass --num"),
        ("TINY --against REAL --num 4 --steps 0", "--steps must be at least 1"),
        ("TINY --against REAL --num 1 --steps 1", "fid needs two or more images"),
        ("MADE --against COLOUR", "real images do not suit the features: they have 3 channels"),
        ("MADE --against LARGE", "have 9x9 pixels, and are not resized to 8x8"),
        ("MADE --against STATS --metrics pr", "pr needs the real images, and"),
        ("MADE --against STATS --resolution 8", "has statistics, not images: leave out"),
        ("MADE --against STATS", "the statistics have 3 features, and digits 64"),
        ("MADE --against OTHER", "the statistics are by inception 1234 clean-fid"),
        ("MADE --against none.npz", "there is no file or folder none.npz"),
        (
            "TINY --against REAL --num 2 --metrics fid,nll --steps 1 --metric-options nll.num=61",
            "nll.num must lie in 0..60",
        ),
    ],
)
def test_refusals(
    argv: str,
    message: str,
    places: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All before a feature is computed or an image is drawn."""
    monkeypatch.setattr("ddpm_jax.cli.scores.collect_features", None)
    monkeypatch.setattr(dj.UNet2DModel, "from_pretrained", None)
    assert message in refused(f"{argv} --features digits", places, capsys)


def nll(model: object, out: Path, *argv: str) -> dict[str, Any]:
    """Runs nll alone, with few timesteps of few images."""
    few = ("--metric-options", "nll.num=5", "nll.timesteps=3", *argv)
    always = f"evaluate {model} --metrics nll --no-cache --batch-size 2 --out {out}"
    assert main([*always.split(), *few]) == 0
    return json.loads(out.read_text())


def test_nll_is_that_of_the_function_and_needs_no_features(
    tiny: Path,
    real: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    count_compilations: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Three batches of two images, the last one filled up."""
    monkeypatch.setattr("ddpm_jax.cli.scores.NETWORKS", {})
    given = ("nll.seed=3", "--against", str(real), "--set", "variance_type=fixed_large")
    found = nll(tiny, tmp_path / "r.json", *given)
    model, params = dj.UNet2DModel.from_pretrained(tiny)
    own = dj.DDPMScheduler.from_pretrained(tiny).config
    scheduler = dj.DDPMScheduler.from_config(own, variance_type="fixed_large")
    x0, keys = from_uint8(digits(5)), dj.sample_keys(jax.random.key(3), 5)
    call = (model.denoise, params, scheduler, x0, keys)
    wanted = np.float64(dj.variational_bound(*call, num_timesteps=3).total)
    numbers = found["metrics"]["nll"]
    assert numbers["bits_per_dim"] == pytest.approx(wanted.mean(), rel=1e-4)
    assert numbers["bits_per_dim_error"] == pytest.approx(wanted.std() / 2, rel=1e-3)  # n - 1 = 4
    assert not {"samples", "features"} & set(found)
    assert (found["reference"]["count"], found["options"]["nll"]["num"]) == (60, 5)
    assert len(found["model"]["weights"]) == 64
    assert '"variance_type": "fixed_large"' in found["model"]["schedulers"]["nll"]
    printed = capsys.readouterr()
    assert f"bits_per_dim {numbers['bits_per_dim']:.6g} ± " in printed.out
    assert "5/5" in printed.err
    with count_compilations() as compiled:
        assert nll(tiny, tmp_path / "r.json", *given)["metrics"] == found["metrics"]
    assert compiled.count == 0


def test_nll_of_classes_and_beside_another_metric(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are those of the data. Samples and features are as without nll, and the weights that
    draw the samples are those that nll is of: they are read once.
    """
    model = save_tiny(tmp_path / "classes", num_class_embeds=10)
    labels = np.arange(60) % 10
    np.savez(tmp_path / "labelled.npz", images=digits(60), kinds=labels)
    given = ("--against", str(tmp_path / "labelled.npz"), "--label-column", "kinds")
    found = nll(model, tmp_path / "r.json", *given)["metrics"]["nll"]
    unet, params = dj.UNet2DModel.from_pretrained(model)
    own = dj.DDPMScheduler.from_pretrained(model), from_uint8(digits(5))
    keys = dj.sample_keys(jax.random.key(0), 5)

    def bits(classes: np.ndarray) -> float:
        call = (Denoiser(unet, classes=True), (params, classes), *own, keys)
        return float(np.mean(dj.variational_bound(*call, num_timesteps=3).total))

    assert found["bits_per_dim"] == pytest.approx(bits(labels[:5]), rel=1e-4)
    assert found["bits_per_dim"] != pytest.approx(bits(labels[5:10]), rel=1e-3)
    drawn = ("--num", "4", "--steps", "2", "--batch-size", "2", "--features", "digits")
    few = ("nll.num=5", "nll.timesteps=3")
    read, reads = dj.UNet2DModel.read_params, []

    def counted(model: Any, folder: Path, *rest: Any) -> Any:
        reads.append(folder)
        return read(model, folder, *rest)

    monkeypatch.setattr(dj.UNet2DModel, "read_params", counted)
    both = evaluate(model, tmp_path / "r.json", *given, *drawn, "--metric-options", *few,
                    metrics="nll,fid")  # fmt: skip
    assert reads == [model / "unet"]
    assert both["metrics"]["nll"] == pytest.approx(found)
    assert both["metrics"]["fid"]["fid"] > 0
    assert list(both["metrics"]) == ["fid", "nll"]  # the file's names are sorted


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("REAL --against REAL", "nll is of a model, and"),
        ("TINY", "nll needs --against with the real images"),
        ("TINY --against REAL --num 5", "nll.num of --metric-options is the number of real"),
        ("TINY --against REAL --steps 5", "--steps is of samples, and nll has none"),
        ("TINY --against REAL --features digits", "--features is of samples"),
        ("TINY --against REAL --save-stats s.npz", "--save-stats is of samples"),
        ("TINY --against REAL --set s_churn=1", "s_churn is an option of a run"),
        ("TINY --against REAL --metric-options nll.method=ode", "one of bound, flow, got 'ode'"),
        ("TINY --against REAL --metric-options nll.probes=2", "is not of nll.method=bound"),
        ("TINY --against REAL --metric-options nll.timesteps=1001", "at most the model's 1000"),
        ("TINY --against REAL --metric-options nll.num=61", "nll.num must lie in 0..60"),
        ("TINY --against REAL --label-column y", "--label-column is of nll with a model that has"),
        ("TINY --against STATS", "nll needs the real images, and"),
        ("TINY --against LARGE", "images are 8x8x1, and the real ones 9x9x1: see --resolution"),
        ("TINY --against COLOUR", "images are 8x8x1, and the real ones 8x8x3"),
        ("EDM --against REAL --set sigma_max=50", "got EDMEulerScheduler"),
        ("LCM --against REAL --metric-options nll.method=flow", "networks of LCMScheduler are"),
        ("CLASSES --against REAL", "nll of a model with classes needs labels: REAL"),
        ("avatars --against REAL", "makes images from prompts: nll is of models without"),
        ("CLASSES --against FAR", "must lie in 0..9, as the model has 10 classes; got 11"),
    ],
)
def test_refusals_of_nll(
    argv: str,
    message: str,
    places: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All before weights are read."""
    monkeypatch.setattr(dj.UNet2DModel, "from_pretrained", None)
    if argv.startswith("CLASSES"):
        places["CLASSES"] = save_tiny(tmp_path / "classes", num_class_embeds=10)
    for name, scheduler in {"EDM": dj.EDMEulerScheduler(), "LCM": dj.LCMScheduler()}.items():
        if argv.startswith(name):
            places[name] = save_tiny(tmp_path / name)
            scheduler.save_pretrained(places[name] / "scheduler")
            named = ["diffusers", type(scheduler).__name__]
            edit(places[name] / "model_index.json", scheduler=named)
    said = refused(f"{argv} --metrics nll", places, capsys)
    assert message.replace("REAL", str(places["REAL"])) in said


def test_weights_that_are_not_there(
    folder: Path, real: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(f"evaluate {folder} --against {real} --weights none.pth --no-cache", capsys, 1)
    assert "none.pth: there is no such file with weights of Inception-v3" in said


def test_a_shard_is_missing(tiny: Path, tmp_path: Path) -> None:
    """The run is not done: fewer images would give another number."""
    shards = ("--format", "npz", "--shard-size", "4")
    assert sample(tiny, tmp_path / "npz", "--num", "10", *shards) == 0
    (tmp_path / "npz" / "00004-00007.npz").unlink()
    with pytest.raises(ValueError, match=r"no file has images from 4 on, before 00008-00009\.npz"):
        evaluated.open_images(Data(name=str(tmp_path / "npz")))
    (tmp_path / "npz" / "00004-00007.npz").write_bytes(b"PK\x03\x04damaged")
    images = evaluated.open_images(Data(name=str(tmp_path / "npz")))
    with pytest.raises(ValueError, match=r"00004-00007\.npz cannot be read as a shard"):
        list(images.batches(3))
    np.savez(tmp_path / "npz" / "00004-00007.npz", others=np.zeros(2))
    with pytest.raises(ValueError, match=r"00004-00007\.npz cannot be read as a shard"):
        list(images.batches(3))


def test_models_and_images_are_told_apart(tiny: Path, folder: Path, real: Path) -> None:
    models = ("digits", "avatars", str(tiny), "google/ddpm-cifar10-32")
    assert all(map(evaluated.is_model, models))
    assert not any(map(evaluated.is_model, (str(folder), str(real), "none.npz", "./none.npy")))
