"""Runs as files: their images, their programs, and what is refused."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from pipelines.models import SIZE, pipeline, scheduler, tiny

import ddpm_jax as dj
from ddpm_jax.export import file
from ddpm_jax.export.file import Content
from ddpm_jax.hub.class_names import NO_CLASS
from ddpm_jax.models.layers import cudnn, target
from ddpm_jax.pipelines.unconditional import DDPMPipeline

pytest.importorskip("flatbuffers", reason="jax.export stores programs with it")

DOCS = Path(__file__).parents[2] / "docs"
SEED = 3
NOISY = dj.DDIMScheduler.from_config(scheduler().config).table(4, eta=0.5)
ROUNDING = 1e-5
"""Of images in [0, 1], between two programs of one run."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    """A run for three platforms, of any batch."""
    path = folder / "any.npz"
    dj.export_sampler(
        path, pipeline(DDPMPipeline), NOISY, platforms=["cpu", "cuda", "tpu"], made_by="again"
    )
    return path


@pytest.fixture(scope="module")
def sampler(exported: Path) -> dj.ExportedSampler:
    return dj.load_sampler(exported)


def images_of(pipe: Any, count: int, **options: Any) -> np.ndarray:
    key = jax.random.key(SEED)
    return pipe(
        key, batch_size=count, table=NOISY, output_type="np", progress=False, **options
    ).images


def test_images_are_those_of_the_pipeline_bit_for_bit(folder: Path) -> None:
    pipe, path = pipeline(DDPMPipeline), folder / "three.npz"
    dj.export_sampler(path, pipe, NOISY, batch_size=3)
    sampler = dj.load_sampler(path)
    np.testing.assert_array_equal(sampler(SEED), images_of(pipe, 3))
    np.testing.assert_array_equal(sampler(SEED, [2, 0, 1]), images_of(pipe, 3)[[2, 0, 1]])


def test_a_batch_may_be_left_open(sampler: dj.ExportedSampler) -> None:
    expected = images_of(pipeline(DDPMPipeline), 3)
    np.testing.assert_allclose(sampler(SEED, [2, 0]), expected[[2, 0]], atol=ROUNDING)
    np.testing.assert_allclose(sampler(SEED), expected[:1], atol=ROUNDING)


def test_labels_guidance_starting_points_and_weights_of_a_type_that_numpy_lacks(
    folder: Path,
) -> None:
    model, params = tiny(num_class_embeds=3)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    pipe, path = DDPMPipeline(unet=model, params=half, scheduler=scheduler()), folder / "half.npz"
    with pytest.raises(ValueError, match="names no class that means no class"):
        dj.export_sampler(path, pipe, NOISY, guided=True)
    pipe.class_names = {0: "a", 1: "b", 2: NO_CLASS}
    interval, labels = (0.1, 10.0), [0, 1]
    dj.export_sampler(path, pipe, NOISY, guided=True, guidance_interval=interval, x_T=True)
    assert {weight.dtype.name for weight in file.read(path).weights.values()} == {"uint16"}
    sampler = dj.load_sampler(path)
    x_T = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 1)).astype(np.float32)
    for scale in (2.0, 3.5):
        expected = images_of(
            pipe,
            2,
            class_labels=labels,
            guidance_scale=scale,
            guidance_interval=interval,
            x_T=x_T,
        )
        found = sampler(SEED, [0, 1], labels=labels, guidance=scale, x_T=x_T)
        np.testing.assert_allclose(found, expected, atol=ROUNDING)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, got 3"):
        sampler(SEED, [0, 1], labels=[0, 3], guidance=2.0, x_T=x_T)
    with pytest.raises(ValueError, match="labels is missing; guidance is missing; x_T is missing"):
        sampler(SEED)


def test_each_platform_has_its_own_program(exported: Path) -> None:
    """The CPU's convolutions make one row more, and no other's, whatever was traced before."""
    programs = file.read(exported).programs
    assert list(programs) == dj.load_sampler(exported).about["platforms"] == ["cpu", "cuda", "tpu"]
    for name, program in programs.items():
        found = export.deserialize(bytearray(program))
        assert found.platforms == (name,)
        assert b".py" not in program, "a path of the machine that made it"
        assert bool(re.search(rf"tensor<\?x{SIZE + 1}x{SIZE}x", found.mlir_module())) == (
            name == "cpu"
        )


def test_an_export_has_no_call_of_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.Device, "compute_capability", "9.0", raising=False)
    monkeypatch.setattr(cudnn.jax, "local_devices", lambda: [jax.Device])
    monkeypatch.setattr(cudnn.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(cudnn.jax, "device_count", lambda: 1)
    assert cudnn.has_programs()
    with target.exported_to("cuda"):
        assert not cudnn.has_programs()
    assert cudnn.has_programs()


def lines_of_the_page() -> str:
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", (DOCS / "export.md").read_text("utf-8"))
    (block,) = [block for block in blocks if "deserialize" in block]
    return block


def test_a_process_without_this_library_runs_it(
    tmp_path: Path, exported: Path, sampler: dj.ExportedSampler
) -> None:
    """The lines of docs/export.md, where importing us, flax or PIL fails."""
    (tmp_path / "digits.npz").write_bytes(exported.read_bytes())
    without = "ddpm_jax weights_convert flax optax jaxtyping PIL safetensors".split()
    block = f"import sys\nsys.modules |= dict.fromkeys({without})\n"
    code = f"{block}{lines_of_the_page()}\nnp.save('images.npy', images)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "images.npy"), sampler(0, range(2)), atol=ROUNDING
    )


# What is refused.


def changed(path: Path, source: Path, change: Callable[[Content], Content]) -> Path:
    file.write(path, change(file.read(source)))
    return path


def test_a_jax_that_refuses_it_is_told_in_one_sentence(
    tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(content: Content) -> Content:
        return content._replace(about=content.about | {"jax": "0.4.1"})

    def unreadable(content: Content) -> Content:
        return older(content)._replace(programs={"cpu": content.programs["cpu"][:-50]})

    def newer(content: Content) -> Content:
        program, known = content.programs["cpu"], b"add_v1"
        assert program.count(known) == 1
        later = program.replace(known, b"add_v9")
        return older(content)._replace(programs={"cpu": later})

    def another(content: Content) -> Content:
        return older(content)._replace(programs={"cpu": content.programs["tpu"]})

    sentence = (
        rf"made by jax 0\.4\.1, and jax {re.escape(jax.__version__)} refuses it \(.*\): "
        "make it again: again$"
    )
    for change in (unreadable, another):
        path = changed(tmp_path / "changed.npz", exported, change)
        with pytest.raises(ValueError, match=sentence):
            dj.load_sampler(path)
    path = changed(tmp_path / "newer.npz", exported, newer)
    with pytest.raises(ValueError, match=sentence):
        dj.load_sampler(path)(0)
    path = changed(tmp_path / "old.npz", exported, older)
    monkeypatch.setattr(export, "minimum_supported_calling_convention_version", 99)
    with pytest.raises(ValueError, match=sentence):
        dj.load_sampler(path)


def test_another_platform_is_named(tmp_path: Path, exported: Path) -> None:
    def gpu_only(content: Content) -> Content:
        return content._replace(programs={"cuda": content.programs["cuda"]})

    path = changed(tmp_path / "gpu.npz", exported, gpu_only)
    wanted = "is for cuda, and this process runs on cpu: make it again with --platforms cpu: again"
    with pytest.raises(ValueError, match=wanted):
        dj.load_sampler(path)


def test_damaged_files(tmp_path: Path, exported: Path) -> None:
    whole, path = exported.read_bytes(), tmp_path / "damaged.npz"
    with pytest.raises(ValueError, match="does not exist"):
        dj.load_sampler(path)
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for content in (b"", b"no file of numpy", whole[:middle], whole[:-1], flipped):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no exported sampler, or it is damaged"):
            dj.load_sampler(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ValueError, match='it has no "about"'):
        dj.load_sampler(path)
    np.savez(path, about=np.array(json.dumps({"format": "another"})))
    with pytest.raises(ValueError, match='"format" is not'):
        dj.load_sampler(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -1}, "seed must be numbers from 0 to 4294967295"),
        ({"seed": 2**32}, "seed must be numbers from 0 to 4294967295"),
        ({"seed": 0.5}, "seed must be whole numbers, got float64"),
        ({"seed": [1, 2]}, r"seed must be of shape \(\), got \(2,\)"),
        ({"numbers": [[1]]}, r"numbers must be of shape \(1,\), got \(1, 1\)"),
        ({"numbers": []}, "numbers must be one or more, got 0"),
        ({"labels": [1]}, "labels is none of its inputs"),
    ],
)
def test_inputs_are_checked(
    sampler: dj.ExportedSampler, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(**given)


def test_arguments_are_checked(tmp_path: Path) -> None:
    pipe, path = pipeline(DDPMPipeline), tmp_path / "none.npz"
    up = dj.DDIMInverseScheduler().table(4)
    faults: list[tuple[dj.Table, dict[str, Any], str]] = [
        (NOISY, {"platforms": ["gpu"]}, "platforms must be of cpu, cuda, rocm, tpu; got gpu"),
        (NOISY, {"batch_size": 0}, "batch_size must be at least 1"),
        (NOISY, {"guidance_interval": (0.1, 1.0)}, "needs a guidance_scale above 1"),
        (up, {}, "goes up"),
        (dj.stack([NOISY, NOISY]), {}, "stack of tables"),
    ]
    for table, options, message in faults:
        with pytest.raises(ValueError, match=message):
            dj.export_sampler(path, pipe, table, **options)
    assert not path.exists()
