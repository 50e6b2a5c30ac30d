"""Stable Diffusion 1.x and 2.x: what all its pipelines share.

    context = text_encoder(tokenizer(prompt))
    z       = the end of the table, from noise, under guided(unet)
    image   = vae.decode(z / scaling_factor)

Text encoder, loop and decoder are three compiled programs.

Reference: Rombach et al. 2022, arXiv:2112.10752.
"""

import os
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, TypeVar, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from PIL.Image import Image

import weights_convert
from ddpm_jax._typing import AnyArray, is_whole
from ddpm_jax.guidance.guide import Guide
from ddpm_jax.guidance.known import WithKnown
from ddpm_jax.hub import hub
from ddpm_jax.hub.files import faults_of, listed
from ddpm_jax.images import to_uint8
from ddpm_jax.models import (
    AutoencoderKL,
    CLIPTextModel,
    StableDiffusionSafetyChecker,
    UNet2DConditionModel,
)
from ddpm_jax.models.pretrained import Placement
from ddpm_jax.pipelines.base import (
    OF_THE_MODEL,
    Component,
    DiffusionPipeline,
    LoadOptions,
    concrete,
    split_options,
)
from ddpm_jax.pipelines.beginning import Begin, Keys
from ddpm_jax.pipelines.call import (
    RunOptions,
    check_guide,
    check_output_type,
    checked_interval,
    chosen_table,
    converted,
    run_table,
)
from ddpm_jax.pipelines.generate import with_conditions
from ddpm_jax.pipelines.image_processors import CLIP_PROCESSOR, write_processor
from ddpm_jax.pipelines.inputs import Inputs, batch_sharding, count_of, image_keys, sharded
from ddpm_jax.pipelines.latents import decoded, encode
from ddpm_jax.pipelines.pictures import Pictures
from ddpm_jax.pipelines.prompts import Prompts, Texts, check_prompts, encode_prompts
from ddpm_jax.sampling.keys import encoding_noise
from ddpm_jax.schedulers import DDIMScheduler, Scheduler
from ddpm_jax.tables.table import Table
from ddpm_jax.text.tokenizer import CLIPTokenizer

PipelineT = TypeVar("PipelineT", bound="StableDiffusion")
LatentOutputType: TypeAlias = Literal["pil", "np", "jax", "latent"]
STEPS, GUIDANCE_SCALE = 50, 7.5
"""The defaults of all pipelines."""


class PromptOptions(RunOptions, total=False):
    """Options of a call, the same for all pipelines with prompts."""

    guidance_scale: float
    """Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598): output = negative + scale
    (conditional - negative). The default is 7.5. Up to 1 there is none. Another scale compiles
    nothing."""
    guidance_interval: tuple[float, float] | None
    """(low, high): guidance only where low < sigma / alpha <= high (Kynkaanniemi et al. 2024,
    arXiv:2404.07724). Another interval compiles nothing."""
    guide: Guide | None
    """What guides the run beside the prompt, such as `ddpm_jax.pigdm`; its samples are latents."""
    negative_prompt: Texts | None
    """What guidance moves away from: one text for all prompts, or one for each. The default is the
    empty text."""
    num_images_per_prompt: int
    """Images of a prompt, in sequence; the default is 1."""
    eta: float | None
    """Amount of noise relative to DDPM, for schedulers that have this option; the default, None, is
    the scheduler's own: 0 for DDIM."""
    prompt_embeds: ArrayLike | None
    """(P, tokens, width) features of prompts. Then `prompt` is None."""
    negative_prompt_embeds: ArrayLike | None
    """Features in place of `negative_prompt`, as many tokens as the prompts'."""
    clip_skip: int
    """Last layers of the text encoder that are left out; the default is 0."""
    output_type: LatentOutputType
    """"pil", the default; "np" or "jax" for float32 arrays (B, H, W, 3) in [0, 1]; "latent" for
    latents (B, h, w, c)."""


class StableDiffusionPipelineOutput(NamedTuple):
    """The result of a pipeline with prompts.

    Attributes:
        images: PIL images, or a float32 array (B, H, W, 3) in [0, 1], or latents (B, h, w, c).
        nsfw_content_detected: for each image whether the safety checker made it black; None
            without one.
    """

    images: list[Image] | Float[np.ndarray, "b h w c"] | Float[Array, "b h w c"]
    nsfw_content_detected: list[bool] | None


TextOutput: TypeAlias = StableDiffusionPipelineOutput | tuple[Any, Any]


class StableDiffusion(DiffusionPipeline):
    """Base of the pipelines with prompts.

    Args:
        unet: the denoising network, in latent space.
        vae: between images and latents.
        text_encoder: the network of the prompts.
        tokenizer: of the text encoder.
        scheduler: any scheduler. As in diffusers, `steps_offset` becomes 1 and `clip_sample` False
            here; a scheduler that is assigned later stays as it is.
        params: {"unet": params, "vae": params, "text_encoder": params}, and of the safety checker.
        safety_checker: makes images black that it flags; None: none is checked.

    Raises:
        ValueError: a component is not of these classes, or two do not fit together.
    """

    unet = Component(UNet2DConditionModel)
    """The denoising network."""
    vae = Component(AutoencoderKL)
    """The autoencoder."""
    text_encoder = Component(CLIPTextModel)
    """The network of the prompts."""
    tokenizer = Component(CLIPTokenizer)
    """The tokenizer of the prompts."""
    safety_checker = Component(StableDiffusionSafetyChecker, optional=True)
    """The network that flags images, or None."""
    unread = ("feature_extractor", "image_encoder")
    default_strength: ClassVar[float] = 1.0
    """The part of the steps that a call runs, unless it says so itself."""
    scheduler_fields: ClassVar[Mapping[str, Any]] = {"steps_offset": 1, "clip_sample": False}
    """What the constructor makes of the scheduler's config."""

    def __init__(
        self,
        *,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: Scheduler,
        params: Mapping[str, Any],
        safety_checker: StableDiffusionSafetyChecker | None = None,
        **parts: Any,
    ):
        super().__init__(
            params,
            unet=unet,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
            safety_checker=safety_checker,
            **parts,
        )
        if self.scheduler != scheduler:
            before, now = scheduler.config, self.scheduler.config
            fields = [f"{k}={v}" for k, v in now.items() if before.get(k) != v]
            warnings.warn(
                f"the scheduler's config is changed to {listed(fields)}, as Stable Diffusion was "
                "trained",
                stacklevel=2,
            )

    @classmethod
    def from_single_file(
        cls: type[PipelineT],
        path: str | os.PathLike[str],
        *,
        ema: bool = False,
        configs: Mapping[str, Mapping[str, Any]] | None = None,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        sharding: Placement = None,
        **options: Unpack[LoadOptions],
    ) -> PipelineT:
        """A pipeline from one file in the layout of the original code, `.safetensors` or `.ckpt`.

        No code of a `.ckpt` runs.

        Args:
            path: the file.
            ema: take the UNet's moving average where the file has both; False takes its other
                weights, which in most published files are the average already.
            configs: fields that no shape tells, by component, such as {"scheduler":
                {"prediction_type": "v_prediction"}}.
            dtype: as in `from_pretrained`.
            param_dtype: as in `from_pretrained`.
            sharding: as in `from_pretrained`.
            **options: components that replace the file's or that it lacks, see `LoadOptions`. Such
                files have no tokenizer: pass one, or the name of a folder that has one.

        Raises:
            TypeError: an unknown option, or `revision` or `variant`, which a file does not have.
            ValueError: the file is damaged, of another layout or lacks a component; or as the
                constructor.
            OSError: the file does not exist.
        """
        given, remote = split_options(options)
        accepted = hub.HubOptions.__annotations__.keys() - set(OF_THE_MODEL)
        if unknown := sorted(remote.keys() - accepted):
            raise TypeError(
                f"unknown options {', '.join(unknown)}; accepted of the hub's, for a tokenizer's "
                f"name: {', '.join(sorted(accepted))}"
            )
        parts, params = cls._given(given, **remote)
        declared = cls.declared()
        opened = weights_convert.open_single_file(
            Path(path),
            ema=ema,
            without_depth_estimator="depth_estimator" in parts,
            overrides=configs,
            layout="stable-diffusion",
        )
        with opened as file:
            missing = sorted(
                name
                for name, one in declared.items()
                if not (one.optional or name in parts or name in file.configs)
            )
            if missing:
                raise ValueError(f"{path} has no {listed(missing)}: pass {missing[0]}=")
            wanted = [name for name in file.components if name in declared and name not in parts]
            for name in wanted:
                with faults_of(path):
                    model = declared[name].kind.from_config(file.configs[name])
                parts[name] = model.clone(dtype=dtype, param_dtype=param_dtype)
            if "scheduler" not in parts:
                parts["scheduler"] = DDIMScheduler.from_config(file.configs["scheduler"])
            parts: dict[str, Any] = {**dict.fromkeys(declared), **parts}
            if fault := file.padding_fault(parts["tokenizer"].pad_token):
                warnings.warn(fault, stacklevel=2)
            with faults_of(path):
                cls.check(parts)
            for name in wanted:
                model, source = parts[name], f"the {name} of {path}"
                params[name] = model.take_params(file.components[name], source, sharding)
        return cls._assembled(params, parts)

    @classmethod
    def _assembled(
        cls: type[PipelineT], params: Mapping[str, Any], parts: Mapping[str, Any]
    ) -> PipelineT:
        return cls(params=params, **parts)

    @property
    def params(self) -> dict[str, Any]:
        """The params of its networks, by component."""
        return self._params

    @classmethod
    def adopted(cls, scheduler: Scheduler) -> Scheduler:
        """A scheduler with those of `scheduler_fields` that it reads."""
        config, unread = scheduler.config, scheduler.unread
        wanted = {k: v for k, v in cls.scheduler_fields.items() if k not in unread}
        changed = {k: v for k, v in wanted.items() if config.get(k, v) != v}
        return type(scheduler).from_config(config, **changed) if changed else scheduler

    @classmethod
    @abstractmethod
    def channels(cls, latent: int) -> dict[int, str]:
        """The accepted numbers of the network's input channels, and what they are."""

    @classmethod
    def check(cls, parts: Mapping[str, Any]) -> None:
        """Raises ValueError unless the components fit together, and this pipeline feeds the
        network.
        """
        unet, vae, text = parts["unet"], parts["vae"], parts["text_encoder"]
        tokenizer, latent = parts["tokenizer"], vae.latent_channels
        accepted = cls.channels(latent)
        if unet.in_channels not in accepted:
            others = [
                kind.__name__
                for kind in concrete(StableDiffusion)
                if kind is not cls and unet.in_channels in kind.channels(latent)
            ]
            hint = f": it is for {' or '.join(others)}" if others else ""
            wanted = " or ".join(f"{count} ({what})" for count, what in accepted.items())
            raise ValueError(
                f"{cls.__name__} needs a UNet with in_channels {wanted}, got {unet.in_channels}"
                f"{hint}"
            )
        if unet.out_channels not in (latent, 2 * latent):
            raise ValueError(
                f"the UNet has out_channels {unet.out_channels}, but latents have {latent}"
            )
        if unet.cross_attention_dim != text.hidden_size:
            raise ValueError(
                f"the UNet has cross_attention_dim {unet.cross_attention_dim}, but the text "
                f"encoder's hidden_size is {text.hidden_size}"
            )
        if tokenizer.vocab_size > text.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, but the text encoder's "
                f"vocab_size is {text.vocab_size}"
            )
        if tokenizer.max_length > text.max_position_embeddings:
            raise ValueError(
                f"the tokenizer makes rows of {tokenizer.max_length} tokens, but the text "
                f"encoder's max_position_embeddings is {text.max_position_embeddings}"
            )

    def __repr__(self) -> str:
        def described(name: str, part: Any) -> str:
            leaves = jax.tree.leaves(self._params.get(name, {}))
            count = sum(int(np.prod(np.shape(leaf))) for leaf in leaves)
            return f"{name}=<{type(part).__name__}{f', {count:,} params' if count else ''}>"

        parts = [described(name, part) for name, part in self.parts.items() if part is not None]
        return f"{type(self).__name__}({', '.join(parts)})"

    def _latent_shape(
        self, x_T: ArrayLike | None, height: int | None, width: int | None
    ) -> tuple[int, int, int]:
        """(h, w, c) of the latents; `x_T` has a size too."""
        factor, channels = self.vae.factor, self.vae.latent_channels
        if x_T is not None and height is None and width is None and np.ndim(x_T) == 4:
            return (*np.shape(x_T)[1:3], channels)
        size = self.image_size(height, width)
        return size[0] // factor, size[1] // factor, channels

    def image_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """(H, W) of the images; what is not given is the network's own size."""
        own, factor = self.unet.sample_size, self.vae.factor
        if own is None and (height is None or width is None):
            raise ValueError("this UNet's config has no sample_size: pass height and width")
        sides = (own or 0,) * 2 if own is None or isinstance(own, int) else own
        size = [
            factor * side if given is None else count_of(name, given)
            for name, given, side in zip(("height", "width"), (height, width), sides, strict=True)
        ]
        if any(side % factor for side in size):
            raise ValueError(
                f"height and width must be multiples of {factor}, got {size[0]}x{size[1]}"
            )
        return size[0], size[1]

    def _latents(
        self, found: Pictures, rows: Int[np.ndarray, "b"], keys: Keys | None, draw: int = 0
    ) -> Float[Array, "b h w c"]:
        """Latents of pictures for each row: a draw from the posterior for each key, or its mean."""
        if found.latent:
            return jnp.asarray(found.values)[rows]
        height, width = (side // self.vae.factor for side in found.size)
        shape = (height, width, self.vae.latent_channels)
        mean = keys is None
        drawn = jnp.zeros((len(rows), *shape)) if mean else encoding_noise(keys, shape, draw)
        images = jnp.asarray(found.values)
        return encode(self.vae, self.params["vae"], images, jnp.asarray(rows), drawn)

    def _call(
        self,
        prompt: Texts | None,
        key: ArrayLike,
        run: Mapping[str, Any],
        begin: Begin,
        shape: tuple[int, int, int],
        *,
        pictures: int = 1,
        guidance_scale: float = GUIDANCE_SCALE,
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] | None = None,
        guide: Guide | None = None,
        negative_prompt: Texts | None = None,
        num_images_per_prompt: int = 1,
        eta: float | None = None,
        prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None,
        clip_skip: int = 0,
        output_type: LatentOutputType = "pil",
        table: Table | None = None,
        return_dict: bool = True,
        sharding: NamedSharding | None = None,
        x_T: Any = None,
        **rest: Any,
    ) -> TextOutput:
        """Generates images with the options of `PromptOptions`. `run` is the number of steps and
        where the table starts, `shape` (h, w, c) of the latents, and `pictures` how many the user
        gave, one for all prompts or one for each.
        """
        check_output_type(output_type, LatentOutputType)
        check_guide(guide, sharding=sharding)
        per_prompt = count_of("num_images_per_prompt", num_images_per_prompt)
        layers = range(self.text_encoder.num_hidden_layers)
        if not is_whole(clip_skip) or clip_skip not in layers:
            raise ValueError(f"clip_skip must lie in 0..{len(layers) - 1}, got {clip_skip!r}")
        prompts = check_prompts(
            prompt,
            prompt_embeds,
            negative_prompt,
            negative_prompt_embeds,
            shape=(self.tokenizer.max_length, self.unet.cross_attention_dim),
            guided=guidance_scale > 1,
        )
        counts = {prompts.count, pictures} - {1}
        if len(counts) > 1:
            raise ValueError(
                f"images must be one, or {prompts.count} as the prompts; got {pictures}"
            )
        count = max(prompts.count, pictures) * per_prompt
        keys = image_keys(key, count)
        if sharding is not None:
            batch_sharding(sharding)
        if x_T is not None and np.shape(x_T) != (count, *shape):
            raise ValueError(
                f"x_T must be of shape {(count, *shape)} for these images, got {np.shape(x_T)}"
            )
        chosen = chosen_table(self.scheduler, table, {**run, "eta": eta}, STEPS)
        interval = checked_interval(guidance_interval, chosen, guidance_scale)
        beginning = begin(chosen, keys, None if x_T is None else jnp.asarray(x_T, jnp.float32))
        rows = np.arange(count) // per_prompt % prompts.count
        conditions = self.conditions(prompts, clip_skip, rows)
        if beginning.channels is not None:
            conditions["channels"] = beginning.channels
        inputs = Inputs(
            count=count,
            x_T=beginning.x_T,
            keys=keys,
            conditions={**conditions, **beginning.known},
        )
        inputs = inputs if sharding is None else sharded(inputs, sharding)
        params = inputs.place(self.params["unet"])
        denoise, params = with_conditions(
            self.unet, params, inputs.conditions, guidance_scale, interval
        )
        if guidance_rescale:
            params["rescale"] = jnp.float32(guidance_rescale)
        known = None
        if beginning.known:
            denoise = WithKnown(denoise)
            if guide is not None:
                raise ValueError(
                    "guide and a mask cannot be given together, but to networks that "
                    "were trained to inpaint"
                )
            known = inputs.conditions["mask"], inputs.conditions["known"]
        if guide is not None:
            denoise, params = guide.around(denoise, params)
        pixels = output_type != "latent"
        vae = (self.vae, inputs.place(self.params["vae"])) if pixels else (None, None)
        decoder = partial(decoded, *vae, known)
        if (callback := rest.get("callback")) and self.safety_checker and pixels:
            rest["callback"] = lambda done, seen: callback(done, np.asarray(self._checked(seen)[0]))
        images = run_table(denoise, params, chosen, inputs, decoder, **rest)
        flags = None
        if pixels:
            images, flags = self._checked(images)
            if flags and any(flags):
                warnings.warn(
                    f"the safety checker made {sum(flags)} of {count} images black: try another "
                    "prompt or key",
                    stacklevel=3,
                )
            images = converted(output_type, images)
        result = StableDiffusionPipelineOutput(images, flags)
        return result if return_dict else (images, flags)

    def conditions(
        self, prompts: Prompts, clip_skip: int, rows: np.ndarray
    ) -> dict[str, Float[Array, "b n d"]]:
        """The features of the prompts, one for each row."""
        context, negative = encode_prompts(
            prompts, self.tokenizer, self.text_encoder, self.params["text_encoder"], clip_skip
        )
        found = {"context": context} | ({} if negative is None else {"negative": negative})
        return {name: features[rows] for name, features in found.items()}

    def _checked(
        self, images: Float[AnyArray, "b h w c"]
    ) -> tuple[Float[AnyArray, "b h w c"], list[bool] | None]:
        """Images, black where the safety checker flags them, and its flags."""
        checker = self.safety_checker
        if checker is None:
            return images, None
        pixels = checker.preprocess(to_uint8(images))
        flags = _flagged(checker, self.params["safety_checker"], jnp.asarray(pixels))
        return jnp.where(flags[:, None, None, None], 0, images), flags.tolist()

    def _written(self, folder: Path) -> dict[str, Any]:
        """What diffusers wants of a pipeline: settings of its image processors."""
        checked = self.safety_checker is not None
        processor = None
        if checked:
            processor = "transformers", "CLIPImageProcessor"
            write_processor(folder, CLIP_PROCESSOR)
        return {
            "feature_extractor": processor,
            "image_encoder": None,
            "requires_safety_checker": checked,
        }


@partial(jax.jit, static_argnames="model")
def _flagged(model: StableDiffusionSafetyChecker, params: Any, pixels: Array) -> Any:
    return model.apply({"params": params}, pixels)
