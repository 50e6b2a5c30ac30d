"""`ddpm-jax info`: a model's config and size, what a weight file is, or how an image was made."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from ddpm_jax.cli.common import OptionalCount, OptionalName, OptionError, counted, flag

if TYPE_CHECKING:
    from ddpm_jax.models import UNet2DModel
    from ddpm_jax.pipelines.stable_diffusion import StableDiffusion
    from weights_convert.files import Stem

AVERAGE = "optimization_step"
"""A field that diffusers' EMAModel adds to the config of the network that it averages."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Show a model's config, parameters and memory, what a weight file is, or how an image was
    made.
    """

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax info digits
  ddpm-jax info google/ddpm-cat-256 --memory --batch-size 16
  ddpm-jax info ema_diffusion_cifar10_model-790000.ckpt
  ddpm-jax info samples.png"""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A hub id, a local folder, a bundled name, a weight file, or a .png or .npz file made by
    ddpm-jax sample."""

    memory: bool = False
    """Also compile the network, and show the memory that an evaluation needs."""

    batch_size: OptionalCount = None
    """Batch size of that evaluation; the default is 1."""

    revision: OptionalName = None
    """Branch, tag or commit of a model on the hub."""

    variant: OptionalName = None
    """Which of a model's weight files, such as fp16."""

    def run(self) -> None:
        """Print the text."""
        if (ending := Path(self.name).suffix.lower()) in (".png", ".npz"):
            from ddpm_jax.cli.provenance import read_png
            from ddpm_jax.cli.shard_files import read_settings

            read = read_png if ending == ".png" else read_settings
            print(_columns(read(Path(self.name))))
            return
        if self.batch_size is not None and not self.memory:
            raise OptionError("--batch-size needs --memory")
        if self.batch_size is not None and self.batch_size < 1:
            raise OptionError(f"--batch-size must be at least 1, got {self.batch_size}")
        if Path(self.name).is_file():
            from weights_convert import inspect

            names = ("memory", "batch_size", "revision", "variant")
            if given := [flag(name) for name in names if getattr(self, name)]:
                raise OptionError(f"of a weight file nothing is shown by {', '.join(given)}")
            print(inspect(self.name))
            return
        from ddpm_jax.cli.loading import located
        from ddpm_jax.pipelines.base import concrete
        from ddpm_jax.pipelines.stable_diffusion import StableDiffusion

        folder, index = located(self.name, self.revision)
        kinds = {kind.__name__: kind for kind in concrete(StableDiffusion)}
        alone = folder == Path(self.name)  # the folder of the network itself was given
        if alone or index is None or index.pipeline not in kinds:
            self._network(folder)
        elif self.memory:
            raise OptionError("--memory is for models with one network")
        else:
            self._pipeline(kinds[index.pipeline], index.components)

    def _network(self, folder: Path) -> None:
        """Print the config and the sizes of a model with one network."""
        from ddpm_jax.hub import class_names, hub
        from ddpm_jax.models import UNet2DModel

        files = UNet2DModel.files
        config = UNet2DModel.read_config(folder)
        model = UNet2DModel.from_config(config)
        shapes = model.shapes()
        print(f"{self.name}: {type(model).__name__}\n")
        print(_columns(model.config))
        if names := class_names.read(hub.root_of(folder, files)):
            print(f"\nclasses: {class_names.in_words(names)}")
        print(f"\n{parameter_table(shapes)}\n")
        print(stored(folder, self.variant, files.weights))
        print(_average(config))
        print(weights_memory(shapes))
        if self.memory:
            print(working_memory(model, shapes, self.batch_size or 1))

    def _pipeline(self, kind: "type[StableDiffusion]", present: Mapping[str, str]) -> None:
        """Print the config of every component, and the sizes of all networks."""
        from ddpm_jax.hub import hub
        from ddpm_jax.hub.files import read_json
        from ddpm_jax.models import Model
        from weights_convert.layout import NETWORK

        wanted = {name: one for name, one in kind.declared().items() if name in present}
        shapes: dict[str, Any] = {}
        places: list[str] = []
        print(f"{self.name}: {kind.__name__}")
        for name, one in wanted.items():
            files = one.files
            folder = hub.component(self.name, files, revision=self.revision, weights=False)
            print(f"\n{name}: {present[name]}")
            if issubclass(one.kind, Model):
                model = one.kind.read_model(folder)
                shapes[name] = model.shapes()
                places.append(f"{name} {stored(folder, self.variant, files.weights)}")
                if name == NETWORK:
                    places.append(f"{name}: {_average(read_json(folder / files.config))}")
                print(_columns(model.config))
            elif name == "scheduler":
                config = read_json(folder / files.config)
                print(_columns({k: v for k, v in config.items() if not k.startswith("_")}))
            else:
                tokenizer = one.kind.read(folder)
                tokens = f"{tokenizer.vocab_size:,}"
                print(_columns({"tokens": tokens, "max_length": tokenizer.max_length}))
        print(f"\n{parameter_table(shapes)}\n")
        print("\n".join(places))
        print(weights_memory(shapes))


def parameter_table(shapes: Mapping[str, Any]) -> str:
    """Tensors and parameters of each part of a network, as text."""
    rows = [(name, *_counts(part)) for name, part in shapes.items()]
    rows.append(("total", *_counts(shapes)))
    width = max(len(name) for name, *_ in rows)
    head = f"{'part':{width}}  tensors   parameters"
    lines = [f"{name:{width}}  {tensors:7,}  {params:11,}" for name, tensors, params in rows]
    return "\n".join([head, *lines])


def stored(folder: Path, variant: str | None, stem: "Stem | None" = None) -> str:
    """A line about the weights in a component's folder. The hub is not accessed."""
    from ddpm_jax.hub import hub
    from weights_convert import find_weights, open_weights
    from weights_convert.files import DIFFUSERS

    try:
        file = find_weights(folder, variant, stem or DIFFUSERS)
    except FileNotFoundError:
        kind = "" if variant is None else f" of variant {variant!r}"
        hint = hub.other_variants(entry.name for entry in folder.iterdir())
        return f"stored: no weights{kind} in {folder}{hint}"
    with open_weights(file) as weights:
        dtypes = " and ".join(sorted({str(dtype) for dtype in weights.dtypes.values()}))
        return f"stored: {len(weights)} tensors of {dtypes} in {file}"


def weights_memory(shapes: Mapping[str, Any]) -> str:
    """A line about the memory of the weights."""
    params = _counts(shapes)[1]
    return f"weights: {_size(4 * params)} in float32, {_size(2 * params)} in bfloat16"


def working_memory(model: "UNet2DModel", shapes: Mapping[str, Any], batch_size: int) -> str:
    """A line about the memory that one compiled evaluation needs beside the weights."""
    import jax
    import jax.numpy as jnp

    from ddpm_jax.models.unet_2d.parts import some_labels
    from ddpm_jax.pipelines.inputs import image_shape

    line = f"an evaluation of {counted(batch_size, 'image')} in float32:"
    if model.config.sample_size is None:
        return f"{line} unknown"
    x = jax.ShapeDtypeStruct((batch_size, *image_shape(model)), jnp.float32)
    one = some_labels(model.config)
    labels = None if one is None else jax.ShapeDtypeStruct((batch_size, *one.shape[1:]), one.dtype)
    program = jax.jit(model.apply).lower({"params": shapes}, x, 1.0, labels).compile()
    stats = program.memory_analysis()
    if stats is None:
        return f"{line} unknown"
    needed = stats.temp_size_in_bytes + stats.output_size_in_bytes
    return f"{line} {_size(needed)} more, on this device"


def _counts(part: Any) -> tuple[int, int]:
    """The numbers of tensors and of parameters."""
    import jax

    leaves = jax.tree.leaves(part)
    return len(leaves), sum(math.prod(leaf.shape) for leaf in leaves)


def _size(count: int) -> str:
    """A number of bytes as text, in B, kB, MB or GB."""
    power = min(3, (len(str(count)) - 1) // 3)
    return f"{count / 1000**power:.4g} {('B', 'kB', 'MB', 'GB')[power]}"


def _average(config: Mapping[str, Any]) -> str:
    """A line that says whether the weights are a moving average."""
    from weights_convert.inspected import average_line
    from weights_convert.layout import AVERAGED

    return average_line(True if AVERAGE in config else config.get(AVERAGED))


def _columns(rows: Mapping[str, Any]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {value!s}" for name, value in rows.items())
