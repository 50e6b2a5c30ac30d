"""The identity of a network: SHA-256 sums of its config and of its weights."""

import hashlib
from pathlib import Path

from ddpm_jax.hub import hub
from ddpm_jax.hub.files import file_sum
from ddpm_jax.models import Model, UNet2DModel
from ddpm_jax.pipelines.base import DiffusionPipeline
from weights_convert import find_weights
from weights_convert.files import chosen, weight_map


def fingerprint(model: str, revision: str | None, variant: str | None) -> dict[str, str]:
    """The sums of a model's `config.json` and weights. A model on the hub is downloaded.

    For one weight file it is the sum that `sha256sum` prints. For shards or an orbax folder it is
    the sum of a list with the names and sums of the files.

    Raises:
        ValueError, OSError: as `hub.component` and `find_weights`.
    """
    files = UNet2DModel.files
    folder = hub.component(model, files, revision=revision, variant=variant)
    weights = find_weights(folder, variant)
    return {"config": file_sum(folder / files.config), "weights": _weights_sum(weights)}


def fingerprints(
    folder: Path, kind: type[DiffusionPipeline], variant: str | None
) -> dict[str, str]:
    """The sums of all files in a pipeline's folder that its images depend on, by component.

    That of a component is the sum of a list with its files' names and sums.
    """
    sums: dict[str, str] = {}
    for name, one in kind.declared().items():
        part = folder / one.files.folder
        if name == "scheduler" or not part.is_dir():
            continue
        files = [part / file for file in one.files.own("") if (part / file).is_file()]
        lines = [f"{file_sum(file)}  {file.name}\n" for file in files]
        if issubclass(one.kind, Model):
            weights = one.kind.files.weights
            present = [file.name for file in part.iterdir()]
            own = variant if weights and chosen(present, variant, weights) else None
            found = find_weights(part, own, weights) if weights else part
            lines.append(f"{_weights_sum(found)}  {found.name}\n")
        sums[name] = hashlib.sha256("".join(lines).encode()).hexdigest()
    return sums


def _weights_sum(weights: Path) -> str:
    if weights.is_dir():
        files = sorted(file for file in weights.rglob("*") if file.is_file())
    elif weights.suffix == ".json":
        files = [weights.parent / name for name in sorted(set(weight_map(weights).values()))]
    else:
        return file_sum(weights)
    lines = [f"{file_sum(file)}  {file.relative_to(weights.parent).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
