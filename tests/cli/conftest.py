"""Saved models that the tests of the command line share."""

from pathlib import Path

import pytest
from cli.sampling import save_tiny
from pipelines.latent_models import parts

import ddpm_jax as dj
from ddpm_jax.hub import class_names


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of gray images without prompts."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that was trained with dropped labels: its last class means no class."""
    folder = save_tiny(tmp_path_factory.mktemp("model") / "classes", num_class_embeds=3)
    class_names.write(folder, {0: "cat", 1: "dog", 2: "no class"})
    return folder


@pytest.fixture(scope="session")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Stable Diffusion."""
    folder = tmp_path_factory.mktemp("model") / "prompted"
    dj.StableDiffusionPipeline(**parts()).save_pretrained(folder)
    return folder
