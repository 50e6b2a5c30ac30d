"""Features of images in batches, by any network."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from launch import printed

import ddpm_jax as dj
from ddpm_jax.evaluation.features import Outputs
from ddpm_jax.evaluation.resizing import RESIZINGS


def images(n: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, channels)).astype(np.uint8)


def batches(pixels: np.ndarray, size: int) -> list[np.ndarray]:
    return [pixels[start : start + size] for start in range(0, len(pixels), size)]


def raw(params: Any, x: Any) -> Outputs:
    return Outputs(x.reshape(len(x), -1), None)


def of_pixels(**changes: Any) -> dj.FeatureNetwork:
    """Whose features are its input."""
    options: dict[str, Any] = {
        "name": "raw",
        "apply": raw,
        "params": {},
        "size": (8, 8),
        "channels": 3,
        "resizing": RESIZINGS["none"],
        "dims": 192,
        "classes": None,
        "weights": "none",
    }
    return dj.FeatureNetwork(**options | changes)


def test_the_size_of_batches_changes_nothing() -> None:
    network, pixels = dj.digits_features(), images(23)
    whole = dj.collect_features(network, [pixels])
    for size in (1, 7, 23, 40):
        found = dj.collect_features(network, batches(pixels, size), batch_size=size)
        assert found.count == 23
        np.testing.assert_allclose(found.features, whole.features, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.logits, whole.logits, rtol=1e-4, atol=1e-4)
        assert found.statistics is not None
        np.testing.assert_allclose(
            found.statistics.covariance, np.cov(whole.features.T.astype(float)), atol=1e-5
        )


def test_only_what_is_needed_is_kept() -> None:
    found = dj.collect_features(dj.digits_features(), [images(5)], ["statistics"])
    assert (found.features, found.logits) == (None, None)
    assert found.statistics is not None
    found = dj.collect_features(dj.digits_features(), [images(5)], ["logits"])
    assert (found.features, found.statistics) == (None, None)


def test_one_program_for_all_batches(
    count_compilations: Callable[[], AbstractContextManager[Any]],
) -> None:
    """A new network of the same kind compiles nothing either."""
    pixels = images(20)
    dj.collect_features(dj.digits_features(), batches(pixels, 6), batch_size=6)
    network = dj.digits_features()
    with count_compilations() as compiled:
        dj.collect_features(network, batches(images(20, 1), 6), batch_size=6)
    assert compiled.count == 0


def test_the_features_are_the_classifiers() -> None:
    """Of pixels in [0, 1], in float64 by NumPy."""
    from ddpm_jax.evaluation.digits_classifier import read_classifier

    pixels, params = images(9), read_classifier()
    hidden, last = (params[name] for name in ("hidden", "last"))
    x = pixels.reshape(9, 64) / 255
    features = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0)
    found = dj.collect_features(dj.digits_features(), [pixels])
    np.testing.assert_allclose(found.features, features, atol=1e-4)
    np.testing.assert_allclose(found.logits, features @ last["kernel"] + last["bias"], atol=1e-3)


def test_grey_images_become_three_channels() -> None:
    pixels = images(4)
    found = dj.collect_features(of_pixels(), [pixels], ["features"]).features
    wanted = np.repeat(pixels, 3, axis=3).reshape(4, -1) / 255
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def nan(params: Any, x: Any) -> Outputs:
    return Outputs(jnp.log(x.reshape(len(x), -1) - 2), None)


@pytest.mark.parametrize(
    ("network", "given", "need", "message"),
    [
        (of_pixels(), [], "features", "there is no image"),
        (of_pixels(), [images(2).astype(np.float32)], "features", "must be uint8 of shape"),
        (of_pixels(), [images(2, channels=4)], "features", "have 4 channels, and raw takes 3"),
        (of_pixels(size=(9, 9)), [images(2)], "features", "and are not resized to 9x9"),
        (of_pixels(apply=nan), [images(2)], "features", "features by raw are not finite"),
        (of_pixels(), [images(2)], "logits", "raw has no classes"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_refusals(
    network: dj.FeatureNetwork, given: list[np.ndarray], need: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dj.collect_features(network, given, [need])


@pytest.fixture(scope="module")
def four() -> dict[str, Any]:
    """What a process with four devices found: jax fixes their number at its start."""
    return json.loads(printed("-m", "tests.evaluation.four", devices=4).splitlines()[-1])


def test_four_devices_share_a_batch(four: dict[str, Any]) -> None:
    """Each computes its rows, and the features are those of one."""
    found = four["features"]
    assert found["devices"] == 4
    assert (found["batch"], found["rows"], found["count"]) == (12, [3, 3, 3, 3], 22)
    assert found["difference"] < 1e-5  # of features up to 10: sums in another order
    assert found["fid"] == pytest.approx(0, abs=1e-5)


def test_four_devices_share_a_batch_of_likelihoods(four: dict[str, Any]) -> None:
    """Ten images as two batches of five on one device, and of eight on four: the same numbers."""
    bound = four["bound"]
    assert bound["rows"] == [[2, 2, 2, 2], [2, 2, 2, 2]]
    assert set(bound["one"]) == {"bits_per_dim", "bits_per_dim_error"}
    assert bound["four"] == pytest.approx(bound["one"], rel=1e-5)
    pytest.importorskip("diffrax")
    assert four["flow"]["four"] == pytest.approx(four["flow"]["one"], rel=1e-5)
