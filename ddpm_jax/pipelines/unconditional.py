"""The pipelines with one network: from a checkpoint and a key to images.

`DDPMPipeline`, `DDIMPipeline` and `PNDMPipeline` differ in their defaults and in their initial
scheduler. Any scheduler may be assigned later.
"""

import inspect
import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, TypedDict, TypeVar, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from PIL.Image import Image

import weights_convert
from ddpm_jax.guidance.guide import Guide
from ddpm_jax.guidance.known import WithKnown
from ddpm_jax.hub import class_names
from ddpm_jax.hub.files import faults_of
from ddpm_jax.images import SIGNED, UNIT, PixelRange
from ddpm_jax.models import UNet2DModel
from ddpm_jax.models.pretrained import Placement
from ddpm_jax.pipelines.base import Component, DiffusionPipeline
from ddpm_jax.pipelines.beginning import table_up
from ddpm_jax.pipelines.call import (
    OutputType,
    RunOptions,
    check_guide,
    check_options,
    check_output_type,
    checked_interval,
    chosen_table,
    converted,
    run_table,
)
from ddpm_jax.pipelines.from_image import from_image, given_pictures
from ddpm_jax.pipelines.generate import DECODERS, with_conditions
from ddpm_jax.pipelines.inputs import Labels, check_channels, check_pil, make_inputs
from ddpm_jax.schedulers import SCHEDULERS, DDIMScheduler, PNDMScheduler, Scheduler
from ddpm_jax.tables.table import Table

UNET = UNet2DModel.files.folder
PipelineT = TypeVar("PipelineT", bound="UnconditionalPipeline")


class FileSettings(TypedDict, total=False):
    """What no tensor of a model in one file tells, see `weights_convert.Settings`."""

    sample_size: int
    """Width and height of the images in pixels."""
    num_heads: int
    """Heads of every attention."""
    num_head_channels: int
    """Channels of one head, in place of `num_heads`."""
    head_order: Literal["legacy", "new"]
    """"new": queries, keys and values of all heads follow each other; "legacy": those of each head
    do."""
    num_train_timesteps: int
    """Timesteps of the training, or levels of a consistency model."""
    beta_schedule: Literal["linear", "squaredcos_cap_v2"]
    """The noise schedule of the training."""
    variance_type: Literal["fixed_small", "fixed_large"]
    """Of the sampling, if the network does not learn it."""
    rescale_timesteps: bool
    """Whether the network was told its timesteps as parts of 1000."""


class CallOptions(RunOptions, total=False):
    """Options of a call, the same for all pipelines with one network."""

    batch_size: int | None
    """Number of images. Default: the number of keys or of rows of x_T, or one."""
    class_labels: Labels | None
    """For class-conditional models: one label, or one for each image. A label is a number, or a
    name of `pipe.class_names`."""
    guidance_scale: float
    """Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598), for networks that were
    trained with dropped labels: output = negative + scale (conditional - negative). Up to 1, the
    default, there is none. Each evaluation then takes a batch of twice the size."""
    guidance_interval: tuple[float, float] | None
    """(low, high): guidance only where low < sigma / alpha <= high (Kynkaanniemi et al. 2024,
    arXiv:2404.07724). Another interval compiles nothing."""
    guide: Guide | None
    """What guides the run, such as `ddpm_jax.pigdm` (from a measurement) or
    `ddpm_jax.classifier_guide`."""
    negative_labels: Labels | None
    """What guidance moves away from; the default is the class that means "no class"."""
    image: Any
    """Images to begin with, one for all or one for each: PIL images (scaled to the network's own
    size), or arrays (H, W, C) or (K, H, W, C) in [0, 1]. They are noised to the level where the run
    begins: image to image."""
    mask_image: Any
    """Masks of the size of `image`: PIL images, or arrays (H, W) or (K, H, W). From 0.5 (128 in a
    PIL image) on, pixels are made anew, and all others stay: inpainting. Schedulers that add noise
    noise what is known anew at every evaluation, others once."""
    strength: float | None
    """The part of the steps that is run, above 0 and at most 1: by default 0.8, and with a mask 1,
    where the run begins with noise alone. A `table` takes its place; with a mask it says how the
    table begins."""
    output_type: OutputType
    """"pil", the default; "np" or "jax" for float32 arrays (B, H, W, C) in [0, 1]."""


class ImagePipelineOutput(NamedTuple):
    """The result of a pipeline.

    Attributes:
        images: PIL images, or a float32 array (B, H, W, C) in [0, 1]: of NumPy for
            `output_type="np"`, of jax for "jax".
    """

    images: list[Image] | Float[np.ndarray, "b h w c"] | Float[Array, "b h w c"]


Output: TypeAlias = ImagePipelineOutput | tuple[Any]


class UnconditionalPipeline(DiffusionPipeline):
    """A network, its params and a scheduler.

    Args:
        unet: the model.
        params: its params, a plain nested dict.
        scheduler: any scheduler.

    Attributes:
        unet: the model.
        params: its params.
        scheduler: the scheduler, after conversion. Another may be assigned.
        class_names: the names of its classes by number; empty if they have none.

    Raises:
        ValueError: a component is not of these classes.
    """

    unet = Component(UNet2DModel)
    """The model. Another may be assigned."""
    pixels: ClassVar[PixelRange] = SIGNED
    """The range of its images."""

    def __init__(self, *, unet: UNet2DModel, params: Any, scheduler: Scheduler):
        super().__init__({UNET: params}, unet=unet, scheduler=scheduler)

    @classmethod
    def from_single_file(
        cls: type[PipelineT],
        path: str | os.PathLike[str],
        *,
        ema: bool = False,
        layout: str | None = None,
        scheduler: Scheduler | None = None,
        configs: Mapping[str, Mapping[str, Any]] | None = None,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        sharding: Placement = None,
        **settings: Unpack[FileSettings],
    ) -> PipelineT:
        """A pipeline from one file of another library (docs/checkpoints.md lists the layouts).

        No code of a file runs.

        Args:
            path: the file.
            ema: take the moving average where the file has both; False takes its other weights.
            layout: the file's layout, where its tensors do not tell it.
            scheduler: replaces the file's.
            configs: fields that no shape tells, by component, such as {"scheduler":
                {"prediction_type": "v_prediction"}}.
            dtype: as in `from_pretrained`.
            param_dtype: as in `from_pretrained`.
            sharding: as in `from_pretrained`.
            **settings: what the tensors do not tell; the error about missing ones says which are
                needed.

        Raises:
            TypeError: an unknown setting.
            ValueError: the file is damaged, of no layout that is read, or one that `UNet2DModel`
                cannot express; layout or settings are missing or wrong.
            OSError: the file does not exist.
        """
        unknown = sorted(settings.keys() - FileSettings.__annotations__.keys())
        if unknown:
            accepted = ", ".join(FileSettings.__annotations__)
            raise TypeError(f"unknown settings {', '.join(unknown)}; accepted: {accepted}")
        opened = weights_convert.open_single_file(
            Path(path),
            ema=ema,
            overrides=configs,
            layout=layout,
            settings=weights_convert.Settings(**settings),
        )
        with opened as file, faults_of(path):
            if file.layout not in weights_convert.UNCONDITIONAL:
                raise ValueError(f"is in the layout {file.layout}, which takes prompts")
            unet = UNet2DModel.from_config(file.configs[UNET])
            unet = unet.clone(dtype=dtype, param_dtype=param_dtype)
            if scheduler is None:
                config = file.configs[Scheduler.files.folder]
                named = {kind.__name__: kind for kind in SCHEDULERS}[config["_class_name"]]
                kind = cls.scheduler_class or named
                scheduler = kind.from_config(config)
            params = unet.take_params(file.components[UNET], f"the unet of {path}", sharding)
        return cls(unet=unet, params=params, scheduler=scheduler)

    @classmethod
    def check(cls, parts: Mapping[str, Any]) -> None:
        """Raises ValueError unless the network predicts its input."""
        check_channels(parts[UNET].config)

    @classmethod
    def check_source(cls, other: type[DiffusionPipeline]) -> None:
        """Raises ValueError if networks of another pipeline have images in another range."""
        theirs: PixelRange = getattr(other, "pixels", SIGNED)
        if theirs != cls.pixels:
            raise ValueError(
                f"the images of a {other.__name__}'s network are in [{theirs.black:g}, 1], and a "
                f"{cls.__name__} takes them to be in [{cls.pixels.black:g}, 1]"
            )

    @classmethod
    def _assembled(
        cls: type[PipelineT], params: Mapping[str, Any], parts: Mapping[str, Any]
    ) -> PipelineT:
        return cls(params=params[UNET], **parts)

    @property
    def params(self) -> Any:
        """The model's params. Others may be assigned."""
        return self._params[UNET]

    @params.setter
    def params(self, params: Any) -> None:
        self._params[UNET] = params

    def __repr__(self) -> str:
        count = sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(self.params))
        size, channels = self.unet.config.sample_size, self.unet.config.in_channels
        unet = f"<UNet2DModel, sample_size={size}, in_channels={channels}, {count:,} params>"
        return f"{type(self).__name__}(unet={unet}, scheduler=<{type(self.scheduler).__name__}>)"

    @abstractmethod
    def __call__(self, key: ArrayLike, *, num_inference_steps: int = 50, **options: Any) -> Output:
        """Generates images; see `DDPMPipeline`. The pipelines differ in their defaults."""

    def encode(
        self,
        image: Any,
        *,
        num_inference_steps: int = 50,
        table: Table | None = None,
        class_labels: Labels | None = None,
        progress: bool = True,
    ) -> Float[Array, "b h w c"]:
        """The noise of images: x_T from which a run ends close to them (`ddpm_jax.inverted`).

        Args:
            image: see `CallOptions`.
            num_inference_steps: of the scheduler's run, which is walked the other way; or as it
                is, if the scheduler itself goes from images to noise, as DDIMInverseScheduler does.
            table: a run down in place of the scheduler's.
            class_labels: see `CallOptions`.
            progress: see `RunOptions`.

        Returns:
            (B, H, W, C) for `x_T=`.

        Raises:
            ValueError: the scheduler's run adds noise, has a history or clips (DDIM's with
                clip_sample False, and Euler's, do not), or as the call.
        """
        found = given_pictures(self.unet, image)
        up = table_up(self.scheduler, num_inference_steps, table)
        key, x0 = jax.random.key(0), self.pixels.from_unit(found.values)
        labels = self._numbers(class_labels)
        inputs = make_inputs(self.unet, up, key, class_labels=labels, x_T=x0)
        denoise, params = with_conditions(self.unet, self.params, inputs.conditions)
        return run_table(denoise, params, up, inputs, jnp.asarray, progress=progress)

    def _call(
        self,
        key: ArrayLike,
        run: Mapping[str, Any],
        *,
        table: Table | None = None,
        batch_size: int | None = None,
        class_labels: Labels | None = None,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] | None = None,
        guide: Guide | None = None,
        negative_labels: Labels | None = None,
        image: Any = None,
        mask_image: Any = None,
        strength: float | None = None,
        x_T: Any = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        sharding: NamedSharding | None = None,
        **rest: Any,
    ) -> Output:
        """Generates images; `run` is the number of steps and the scheduler's options."""
        check_options(rest | {"guidance_scale": guidance_scale}, CallOptions)
        check_output_type(output_type)
        check_guide(guide, mask_image=mask_image, sharding=sharding)
        if output_type == "pil":
            check_pil(self.unet)
        default_steps = inspect.signature(type(self).__call__).parameters["num_inference_steps"]
        given = from_image(
            self.unet,
            image,
            mask_image,
            strength,
            steps=run["num_inference_steps"],
            table=table,
            pixels=self.pixels,
        )
        if given is not None:
            run = {**run, "start": given.start}
            batch_size = len(given) if batch_size is None and len(given) > 1 else batch_size
        chosen = chosen_table(self.scheduler, table, run, default_steps.default)
        interval = checked_interval(guidance_interval, chosen, guidance_scale)
        if guidance_scale > 1 and negative_labels is None:
            negative_labels = self._no_class(class_labels)
        inputs = make_inputs(
            self.unet,
            chosen,
            key,
            batch_size=batch_size,
            class_labels=self._numbers(class_labels),
            negative_labels=self._numbers(negative_labels) if guidance_scale > 1 else None,
            x_T=x_T,
            begin=None if given is None else given.begin,
            sharding=sharding,
        )
        params = inputs.place(self.params)
        denoise, params = with_conditions(
            self.unet, params, inputs.conditions, guidance_scale, interval
        )
        if mask_image is not None:
            denoise = WithKnown(denoise)
        if guide is not None:
            denoise, params = guide.around(denoise, params)
        decode = DECODERS[self.pixels] if given is None else given.decode(inputs)
        images = run_table(denoise, params, chosen, inputs, decode, **rest)
        result = converted(output_type, images)
        return ImagePipelineOutput(result) if return_dict else (result,)

    def _numbers(self, labels: Labels | None) -> Any:
        """Labels with names replaced by numbers."""
        given = [labels] if isinstance(labels, str) else labels
        if not (isinstance(given, list | tuple) and any(isinstance(one, str) for one in given)):
            return labels
        numbers = class_names.numbers_of(given, self.class_names)
        return numbers[0] if isinstance(labels, str) else numbers

    def _no_class(self, labels: Labels | None) -> int:
        """The class that means no class. ValueError if guidance is not possible."""
        if labels is None:
            raise ValueError("guidance_scale needs class_labels")
        found = class_names.no_class(self.class_names)
        if found is None:
            raise ValueError(
                "guidance_scale needs a network that was trained with dropped labels, and this one "
                "names no class that means no class: pass negative_labels"
            )
        return found


class DDPMPipeline(UnconditionalPipeline):
    """Ancestral sampling, 1000 steps by default. The scheduler is not converted.

    Reference: Ho et al. 2020, arXiv:2006.11239.
    """

    def __call__(
        self, key: ArrayLike, *, num_inference_steps: int = 1000, **options: Unpack[CallOptions]
    ) -> Output:
        """Generates images.

        A second call with the same shapes compiles nothing, even with another number of steps.
        Ctrl-C stops a run between two evaluations of the network.

        Args:
            key: `jax.random.key(seed)`. The key of image i is fold_in(key, i), so the image does
                not depend on the batch size. Or (B,) keys, to generate chosen images again. Legacy
                keys are accepted.
            num_inference_steps: steps of the scheduler.
            **options: see `CallOptions`: batch_size, table, class_labels, x_T, output_type,
                return_dict, sharding, progress, callback, callback_every.

        Returns:
            The images.

        Raises:
            TypeError: `key` is missing or is not a key, or an unknown option.
            ValueError: an argument is out of range, or does not match another one or the model.
        """
        return self._call(key, {"num_inference_steps": num_inference_steps}, **options)


class DDIMPipeline(UnconditionalPipeline):
    """Implicit sampling, 50 steps by default. The scheduler is converted to a `DDIMScheduler`.

    Reference: Song et al. 2021, arXiv:2010.02502.
    """

    scheduler_class = DDIMScheduler

    def __call__(
        self,
        key: ArrayLike,
        *,
        num_inference_steps: int = 50,
        eta: float | None = None,
        use_clipped_model_output: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> Output:
        """Generates images, as `DDPMPipeline`, with two more options for DDIM.

        Args:
            key: see `DDPMPipeline`.
            num_inference_steps: steps of the scheduler.
            eta: amount of noise relative to DDPM, 0 (deterministic) to 1; None: the scheduler's own
                default, which is 0 for DDIM.
            use_clipped_model_output: compute eps from the clipped x0.
            **options: see `CallOptions`.

        Returns:
            The images.

        Raises:
            TypeError: as `DDPMPipeline`.
            ValueError: as `DDPMPipeline`; or the scheduler does not have the option eta or
                use_clipped_model_output.
        """
        run = {
            "num_inference_steps": num_inference_steps,
            "eta": eta,
            "use_clipped_model_output": use_clipped_model_output,
        }
        return self._call(key, run, **options)


class PNDMPipeline(UnconditionalPipeline):
    """Pseudo linear multistep sampling, 50 steps by default. The scheduler is converted to a
    `PNDMScheduler`.

    Reference: Liu et al. 2022, arXiv:2202.09778.
    """

    scheduler_class = PNDMScheduler

    def __call__(
        self, key: ArrayLike, *, num_inference_steps: int = 50, **options: Unpack[CallOptions]
    ) -> Output:
        """Generates images. Arguments, results and errors as in `DDPMPipeline`."""
        return self._call(key, {"num_inference_steps": num_inference_steps}, **options)


class ScoreSdeVePipeline(UnconditionalPipeline):
    """Predictor-corrector sampling of the variance-exploding SDE, 2000 steps by default, for
    networks of images in [0, 1]. The scheduler is not converted.

    Reference: Song et al. 2021, arXiv:2011.13456.

    >>> import jax, ddpm_jax as dj
    >>> unet = dj.UNet2DModel(
    ...     sample_size=4,
    ...     block_out_channels=(8,),
    ...     down_block_types=("SkipDownBlock2D",),
    ...     up_block_types=("SkipUpBlock2D",),
    ...     mid_block_type=None,
    ...     layers_per_block=1,
    ...     norm_num_groups=None,
    ...     time_embedding_type="fourier",
    ... )
    >>> pipe = dj.ScoreSdeVePipeline(
    ...     unet=unet,
    ...     params=unet.init_params(jax.random.key(0)),
    ...     scheduler=dj.ScoreSdeVeScheduler(sigma_max=50.0),
    ... )
    >>> pipe(
    ...     jax.random.key(0), num_inference_steps=2, output_type="np", progress=False
    ... ).images.shape
    (1, 4, 4, 3)
    """

    pixels = UNIT

    def __call__(
        self, key: ArrayLike, *, num_inference_steps: int = 2000, **options: Unpack[CallOptions]
    ) -> Output:
        """Generates images. Arguments, results and errors as in `DDPMPipeline`.

        A `ScoreSdeVeScheduler` evaluates the network 1 + correct_steps times a step.
        """
        return self._call(key, {"num_inference_steps": num_inference_steps}, **options)
