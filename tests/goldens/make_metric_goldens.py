"""Writes metrics.npz: numbers of pytorch-fid and torch-fidelity, for the suite without torch.

    python -m tests.goldens.make_metric_goldens

`versions` in the file says what made it.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest has it

from tests.goldens import metric_goldens as cases
from tests.parity import inception_peers as peers


def main() -> None:
    peers.torchvision()
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as tensorflow,
    )
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    packages = ("torch", "pytorch-fid", "torch-fidelity", "torchvision")
    names = ", ".join(f"{name} {version(name)}" for name in packages)
    stored = {"versions": np.array(names), **inception()}
    for old, new in cases.RESIZED:
        x = channels_first(cases.pixels(old)).float()
        linear = torch.nn.functional.interpolate(x / 255, new, mode="bilinear", align_corners=False)
        corners = tensorflow(x, new, align_corners=False)
        stored[f"pytorch-fid {old} {new}"] = channels_last(2 * linear - 1)
        stored[f"torch-fidelity {old} {new}"] = channels_last((corners - 128) / 128)
    a, b = (torch.from_numpy(rows).double() for rows in cases.sets())
    stored |= fid_statistics_to_metric(*map(fid_features_to_statistics, (a, b)), verbose=False)
    kid = {f"kid_{name}": value for name, value in cases.KID.items() if name != "seed"}
    stored |= kid_features_to_metric(a, b, **kid, rng_seed=cases.KID["seed"], verbose=False)
    stored |= isc_features_to_metric(5 * a, cases.SPLITS)
    stored |= prc_features_to_metric(a, b, prc_neighborhood=cases.NEIGHBORS, verbose=False)
    np.savez_compressed(cases.FILE, **stored)


def inception() -> dict[str, np.ndarray]:
    """pytorch-fid's network: the features are what goes into its last layer."""
    network = peers.pytorch_fid_network()
    features: list[torch.Tensor] = []
    network.fc.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    # torchvision's forward pass, which pytorch-fid does not change.
    with torch.no_grad():
        logits = network(channels_first(cases.images()))
    return {"features": features[0].numpy(), "logits": logits.numpy()}


def channels_first(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().transpose(0, 2, 3, 1)


if __name__ == "__main__":
    main()
