"""metrics.npz: numbers of pytorch-fid and torch-fidelity, and the inputs that they are of.

Inception's weights are random, and made here from a seed: they would be 95 MB.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "metrics.npz"

IMAGES = (2, 75, 75, 3)
"""The smallest images that Inception takes, in [-1, 1]."""

RESIZED = [((5, 7), (12, 9)), ((20, 14), (9, 11)), ((8, 8), (8, 8))]
"""Sizes of images, before and after."""

KID = {"subsets": 10, "subset_size": 40, "seed": 2020}
SPLITS, NEIGHBORS = 5, 3


def images() -> np.ndarray:
    return np.random.default_rng(11).uniform(-1, 1, IMAGES).astype(np.float32)


def pixels(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(12).integers(0, 256, (2, *size, 3)).astype(np.uint8)


def features(seed: int, n: int, d: int = 24) -> np.ndarray:
    """Correlated, skew rows, as Inception's are."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((d, d)) / np.sqrt(d)
    return np.maximum(rng.standard_normal((n, d)) @ mix + 0.2 * seed, 0).astype(np.float32)


def sets() -> tuple[np.ndarray, np.ndarray]:
    """Features of samples and of a reference."""
    return features(1, 150), features(2, 130)
