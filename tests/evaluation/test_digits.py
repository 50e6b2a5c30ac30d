"""The judge of generated digits: the real ones pass, what is faulty in one way fails that way."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import ddpm_jax as dj
from benchmarks import digits_quality
from ddpm_jax.evaluation.digits import (
    Digits,
    Judge,
    halves,
    passed,
    real_digits,
)
from ddpm_jax.evaluation.digits_classifier import CLASSIFIER, read_classifier, train
from weights_convert import open_weights


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(real_digits(), cuts=1)


@pytest.fixture(scope="module")
def half(judge: Judge) -> Digits:
    """Real digits, cut otherwise than the judge's."""
    return halves(judge.digits, seed=100)[0]


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"needs sklearn: pip install 'ddpm-jax\[eval"):
        real_digits()


def test_halves_share_no_image_and_have_all_classes_alike() -> None:
    digits = real_digits()
    rows = Digits(np.arange(len(digits.labels)), digits.labels)
    a, b = halves(rows, seed=0)
    assert sorted([*a.images, *b.images]) == list(range(1797))
    counts = [np.bincount(half.labels) for half in (a, b)]
    assert np.abs(np.subtract(*counts)).max() <= 1
    assert (halves(rows, seed=0)[0].images == a.images).all()
    assert (halves(rows, seed=1)[0].images != a.images).any()


def test_the_features_tell_digits_apart(judge: Judge) -> None:
    """What follows them in the bundled classifier reads the digits that it was trained on."""
    last = read_classifier()["last"]
    scores = judge.features(judge.digits.images) @ last["kernel"] + last["bias"]
    assert (scores.argmax(1) == judge.digits.labels).mean() > 0.999


@pytest.mark.slow  # fast: test_the_features_tell_digits_apart
def test_the_bundled_classifier_is_what_its_script_makes(tmp_path: Path) -> None:
    train(tmp_path / "again.safetensors")
    with open_weights(tmp_path / "again.safetensors") as again, open_weights(CLASSIFIER) as bundled:
        assert set(again) == set(bundled)
        for name in again:
            # BLAS differs between machines, and training makes the most of it.
            np.testing.assert_allclose(again[name], bundled[name], atol=0.05)


def test_real_digits_pass(judge: Judge, half: Digits) -> None:
    verdict = judge.verdict(half.images.reshape(-1, 8, 8, 1))
    assert passed(verdict)
    assert verdict["alike"]["size"] == 898
    assert verdict["alike"]["ratio"] < 1  # half of each half is the same images
    readable = verdict["readable"]
    # A reader does not know a half better than the other, since its probabilities are calibrated.
    assert readable["generated"] == pytest.approx(readable["held_out_real"], abs=0.03)


def test_noise_on_digits_is_neither_readable_nor_alike(judge: Judge, half: Digits) -> None:
    noise = 0.3 * np.random.default_rng(0).standard_normal(half.images.shape)
    verdict = judge.verdict((half.images + noise).clip(0, 1))
    assert not verdict["readable"]["passed"]
    assert not verdict["alike"]["passed"]


def test_a_class_too_few_is_found(judge: Judge, half: Digits) -> None:
    """As many images, all readable, but hardly a three."""
    rare = np.flatnonzero(half.labels == 3)[:60]
    images = half.images.copy()
    images[rare] = half.images[half.labels == 0][:60]
    verdict = judge.verdict(images)
    assert not verdict["diverse"]["passed"]
    shares = verdict["diverse"]["shares"]
    assert shares[3] < 0.05 < 0.15 < shares[0]
    assert sum(shares) == pytest.approx(1)
    assert not verdict["alike"]["passed"]


def test_all_distances_are_of_sets_of_one_size(judge: Judge, half: Digits) -> None:
    """Few images are compared with as few: their ratio is not above that of many."""
    few, many = judge.alike(half.images[:200]), judge.alike(half.images)
    assert (few["size"], many["size"]) == (200, 898)
    assert few["between_halves"] > 2 * many["between_halves"]  # the bias, 4.5 times for 200
    assert few["ratio"] < 1.5


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((5, 8, 8, 3)),
        np.zeros((1, 8, 8, 1)),
        np.full((5, 8, 8, 1), 1.1),
        np.full((5, 8, 8, 1), np.nan),
    ],
    ids=["colour", "one", "above one", "nan"],
)
def test_what_cannot_be_judged(judge: Judge, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"images|pixels"):
        judge.verdict(images)


@pytest.mark.slow  # fast: test_images_of_a_file_are_judged
def test_the_command_draws_and_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps give no digits: the command says so, and by its exit status."""
    out = tmp_path / "quality.json"
    arguments = ["--num", "4", "--scheduler", "ddim", "--steps", "2", "--cuts", "1"]
    assert digits_quality.main([*arguments, "--batch-size", "4", "--out", str(out)]) == 1
    result = json.loads(out.read_text())
    assert result["source"] | {"weights": ""} == {
        "model": "digits",
        "scheduler": "ddim",
        "steps": 2,
        "num": 4,
        "seed": 0,
        "weights": "",
    }
    assert len(result["verdict"]["diverse"]["shares"]) == 10
    text = out.with_suffix(".md").read_text()
    assert "| MISSED |" in text
    assert "NOT all criteria are met." in text
    assert text.strip() in capsys.readouterr().out


def test_images_of_a_file_are_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], half: Digits
) -> None:
    np.save(tmp_path / "real.npy", half.images.reshape(-1, 8, 8, 1))
    arguments = ["--images", str(tmp_path / "real.npy"), "--cuts", "1"]
    assert digits_quality.main([*arguments, "--out", str(tmp_path / "real.json")]) == 0
    assert "All criteria are met." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        digits_quality.main(["--images", str(tmp_path / "none.npy")])
    assert "none.npy" in capsys.readouterr().err


@pytest.mark.slow  # fast: test_keys::test_an_image_does_not_depend_on_its_batch
def test_images_are_those_of_their_indices() -> None:
    """The last batch is filled up and cut; what the pipeline gives for the keys is what counts."""
    many, few = (digits_quality.draw("digits", "ddim", 2, num, 3, batch=4) for num in (6, 3))
    assert (many.shape, few.shape) == ((6, 8, 8, 1), (3, 8, 8, 1))
    assert (few == many[:3]).all()
    assert len(np.unique(many, axis=0)) == 6
    pipe = dj.DDIMPipeline.from_pretrained("digits")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), np.arange(2, 6))
    wanted = pipe(keys, num_inference_steps=2, output_type="np", progress=False).images
    np.testing.assert_allclose(many[2:], wanted, atol=1e-5)  # rounding: other places in the batch
