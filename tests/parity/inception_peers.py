"""Inception-v3 of pytorch-fid and of torch-fidelity, with random weights.

Both packages import torchvision. The index has it for torch with CUDA. Beside a CPU build of torch
its compiled operators do not load, and it fails where it adds to two of them. Inception-v3 calls
none of them, so they are defined here, without a kernel, before the import.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.inception_weights import random_state

OPERATORS = ("nms", "qnms")
"""Of torchvision, whose fakes it registers when it is imported."""

_library = torch.library.Library("torchvision", "FRAGMENT")


def torchvision() -> None:
    """Imports torchvision, or skips the test if it is not installed."""
    for package in ("torchvision", "pytorch_fid", "torch_fidelity"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(
                f"needs {package}: pip install -e '.[test,parity]'", allow_module_level=True
            )
    try:
        import torchvision
    except RuntimeError:
        for name in OPERATORS:
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou) -> Tensor")
        import torchvision  # noqa: F401


def torch_state() -> dict[str, torch.Tensor]:
    """The random weights as torch's tensors."""
    return {name: torch.from_numpy(array) for name, array in random_state().items()}


@cache
def pytorch_fid_network() -> Any:
    """pytorch-fid's network with all of its layers."""
    torchvision()
    from pytorch_fid import inception

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: torch_state())
        return inception.fid_inception_v3().eval()


def pytorch_fid_wrapped() -> Any:
    """pytorch-fid's network with its resizing; gives the features (b, 2048, 1, 1)."""
    torchvision()
    from pytorch_fid import inception

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "fid_inception_v3", pytorch_fid_network)
        return inception.InceptionV3().eval()


def torch_fidelity_network(folder: Path) -> Any:
    """torch-fidelity's network with its resizing: features, logits without and with the bias."""
    torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    file = folder / "weights.pth"
    torch.save(torch_state(), file)
    names = ["2048", "logits_unbiased", "logits"]
    return FeatureExtractorInceptionV3("random", names, feature_extractor_weights_path=str(file))
