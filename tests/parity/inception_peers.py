"""Inception-v3 of pytorch-fid and of torch-fidelity, with random weights.

Both packages import torchvision. The index has it for torch with CUDA: beside a CPU build of torch
its compiled operators do not load, and wherever it is installed, imports of diffusers fail. So it
is in a folder of its own, and is imported here alone. Inception-v3 calls none of the operators,
which are defined without a kernel.
"""

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.inception_weights import random_state

FOLDER = Path(__file__).parents[2] / ".torchvision"
INSTALL = (
    "pip install --no-deps pytorch-fid torch-fidelity && "
    f"pip install --no-deps --target {FOLDER.name} torchvision==0.28.0"
)
OPERATORS = ("nms", "qnms")
"""Of torchvision, whose fakes it registers when it is imported."""
USERS = (
    *("pytorch_fid.inception", "pytorch_fid.fid_score"),
    "torch_fidelity.feature_extractor_inceptionv3",
    *(f"torch_fidelity.metric_{name}" for name in ("fid", "isc", "kid", "prc")),
)


@cache
def torchvision() -> None:
    """Imports what needs torchvision, or skips the test. No other test sees torchvision."""
    packages = [name.partition(".")[0] for name in USERS]
    if not FOLDER.is_dir() or not all(map(importlib.util.find_spec, packages)):
        pytest.skip(f"needs {INSTALL}", allow_module_level=True)
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou) -> Tensor")
    _KEPT.append(library)  # the operators go with it
    sys.path.insert(0, str(FOLDER))
    try:
        for name in USERS:
            importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


_KEPT: list[Any] = []


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
