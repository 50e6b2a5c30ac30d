"""The pipelines with prompts on small random models: what they make, compile and refuse."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from pipelines.latent_models import (
    BETAS,
    FACTOR,
    SIZE,
    TOKENS,
    WIDTH,
    checker,
    depth_estimator,
    parts,
)
from pipelines.models import edit, same_params
from weights import ldm_files as ldm

import ddpm_jax as dj
from ddpm_jax.pipelines.beginning import skipped
from ddpm_jax.pipelines.pictures import pictures
from ddpm_jax.pipelines.prompts import check_prompts
from ddpm_jax.text.tokenizer import BOS, EOS
from weights_convert import to_flax

KEY = jax.random.key(0)
LATENTS = SIZE // FACTOR
QUIET: dict[str, Any] = {"output_type": "np", "progress": False, "num_inference_steps": 3}
IMAGE = np.random.default_rng(0).random((SIZE, SIZE, 3), np.float32)
MASK = np.zeros((SIZE, SIZE), np.float32)
MASK[:8, 4:12] = 1


@partial(jax.jit, static_argnames=("model", "method", "clip_skip"))
def applied(model: Any, params: Any, x: Any, **options: Any) -> Any:
    return model.apply({"params": params}, x, **options)


@pytest.fixture(scope="module")
def text() -> dj.StableDiffusionPipeline:
    return dj.StableDiffusionPipeline(**parts())


@pytest.fixture(scope="module")
def image(text: Any) -> dj.StableDiffusionImg2ImgPipeline:
    return dj.StableDiffusionImg2ImgPipeline.from_pipe(text)


@pytest.fixture(scope="module")
def inpaint(text: Any) -> dj.StableDiffusionInpaintPipeline:
    return dj.StableDiffusionInpaintPipeline.from_pipe(text)


@pytest.fixture(scope="module")
def depth() -> dj.StableDiffusionDepth2ImgPipeline:
    model, params = depth_estimator()
    given = parts(5)
    given["params"] = given["params"] | {"depth_estimator": params}
    return dj.StableDiffusionDepth2ImgPipeline(**given, depth_estimator=model)


def test_images_are_those_of_the_functions(text: dj.StableDiffusionPipeline):
    """Tokenizer, text encoder, `dj.guided`, `dj.sample` and the decoder give the same."""
    found = text(["a cat", "dog"], KEY, negative_prompt="hat", guidance_scale=3.0, **QUIET).images
    p, model = text.params, text.text_encoder
    ids = text.tokenizer(["a cat", "dog", "hat", "hat"])
    context, negative = np.split(np.asarray(applied(model, p["text_encoder"], ids)), 2)
    table = text.scheduler.table(3)
    x_T = dj.prior(table, dj.sample_keys(KEY, 2), (LATENTS, LATENTS, 4))
    params = {"network": p["unet"], "context": context, "negative": negative, "scale": 3.0}
    z = dj.sample(dj.guided(text.unet.denoise), params, table, x_T)
    scaled = z / text.vae.scaling_factor
    expected = applied(text.vae, p["vae"], scaled, method="decode")
    np.testing.assert_allclose(found, np.clip(np.asarray(expected) / 2 + 0.5, 0, 1), atol=2e-5)


def test_one_program_for_all_prompts(text: Any, count_compilations: Any):
    text("a cat", KEY, **QUIET)
    with count_compilations() as compiled:
        text("hat", KEY, **(QUIET | {"num_inference_steps": 5}), guidance_scale=2.0)
        text("dog", jax.random.key(1), negative_prompt="cat", **QUIET)
    assert compiled.count == 0


def test_images_of_prompts_and_keys(text: Any):
    """Images of a prompt are neighbours, and each is that of its prompt and key alone."""
    prompts = ["a cat", "dog"]
    found = text(prompts, KEY, num_images_per_prompt=2, **QUIET).images
    keys = dj.sample_keys(KEY, 4)
    assert found.shape == (4, SIZE, SIZE, 3)
    for i, prompt in enumerate(np.repeat(prompts, 2)):
        alone = text(str(prompt), keys[i : i + 1], **QUIET).images
        np.testing.assert_allclose(found[i], alone[0], atol=1e-5)


@pytest.mark.usefixtures("as_users_run")
def test_scalars_of_numpy_and_jax_are_numbers(text: Any, image: Any):
    scales = (3.0, np.float32(3), np.int64(3), jnp.float32(3), np.array(3.0))
    plain, *others = (text("a cat", KEY, guidance_scale=one, **QUIET).images for one in scales)
    for other in others:
        np.testing.assert_array_equal(plain, other)
    strengths = (0.5, np.float32(0.5))
    first, second = (
        image("a cat", KEY, image=IMAGE, strength=one, **QUIET).images for one in strengths
    )
    np.testing.assert_array_equal(first, second)


def test_guidance_in_an_interval(text: Any, count_compilations: Any):
    plain, guided = (text("a cat", KEY, guidance_scale=one, **QUIET).images for one in (1.0, 4.0))
    with count_compilations() as compiled:
        everywhere, nowhere = (
            text("a cat", KEY, guidance_scale=4.0, guidance_interval=interval, **QUIET).images
            for interval in ((0, np.inf), (1e6, 1e7))
        )
    assert compiled.count == 0
    np.testing.assert_array_equal(everywhere, guided)
    np.testing.assert_allclose(nowhere, plain, atol=1e-4)


def test_prompts_and_guidance_matter(text: Any):
    plain, other, more = (
        text(prompt, KEY, guidance_scale=scale, **QUIET).images
        for prompt, scale in (("a cat", 1.0), ("dog", 1.0), ("a cat", 7.5))
    )
    assert np.abs(plain - other).max() > 0.01
    assert np.abs(plain - more).max() > 0.01
    # Up to 1 there is no guidance, whatever the negative prompt is.
    half = text("a cat", KEY, guidance_scale=0.5, negative_prompt="dog", **QUIET).images
    np.testing.assert_array_equal(plain, half)


@pytest.mark.parametrize("skip", [0, 1])
def test_clip_skip_is_for_both_prompts(text: Any, skip: int):
    """Embeddings take the place of each."""
    ids, params = text.tokenizer(["a cat", "hat"]), text.params["text_encoder"]
    features = applied(text.text_encoder, params, ids, clip_skip=skip)
    given = {"prompt_embeds": features[:1], "clip_skip": skip}
    found = text("a cat", KEY, negative_prompt="hat", clip_skip=skip, **QUIET).images
    for negative in ({"negative_prompt": "hat"}, {"negative_prompt_embeds": features[1:]}):
        other = text(None, KEY, **given, **negative, **QUIET).images
        np.testing.assert_allclose(other, found, atol=1e-5)


def test_sizes(text: Any):
    """A height alone is a height; the network's own size is the width."""
    images = text("a cat", KEY, height=SIZE + 2 * FACTOR, **QUIET).images
    assert images.shape == (1, SIZE + 2 * FACTOR, SIZE, 3)
    x_T = jnp.ones((1, LATENTS + 2, LATENTS, 4))
    assert text("a cat", KEY, x_T=x_T, **QUIET).images.shape == images.shape


def test_output_types_and_previews(text: Any):
    seen: list[np.ndarray] = []
    call = QUIET | {"output_type": "latent"}
    latents = text("a cat", KEY, **call).images
    assert latents.shape == (1, LATENTS, LATENTS, 4)
    pictures = text(
        "a cat", KEY, **(QUIET | {"output_type": "pil"}), callback=lambda _i, x: seen.append(x)
    )
    assert pictures.images[0].size == (SIZE, SIZE)
    assert pictures.nsfw_content_detected is None
    assert [one.shape for one in seen] == [(1, SIZE, SIZE, 3)] * len(text.scheduler.table(3))
    images, flags = text("a cat", KEY, return_dict=False, **QUIET)
    np.testing.assert_allclose(seen[-1], images, atol=0.2)
    assert flags is None
    # Latents are taken as an image too.
    image = dj.StableDiffusionImg2ImgPipeline.from_pipe(text)
    assert image("dog", KEY, image=latents, strength=0.4, **QUIET).images.shape == images.shape


def test_image_to_image_at_low_strength_is_like_the_image(image: Any):
    run = QUIET | {"num_inference_steps": 50}
    found = image("a cat", KEY, image=IMAGE, strength=0.02, **run).images[0]
    more = image("a cat", KEY, image=IMAGE, strength=1, **QUIET).images[0]
    around = np.asarray(applied(image.vae, image.params["vae"], 2 * IMAGE[None] - 1))[0]
    around = np.clip(around / 2 + 0.5, 0, 1)
    assert np.abs(found - around).mean() < np.abs(more - around).mean()


def test_the_strength_is_not_cut_by_rounding():
    """50 * 0.58 is 28.999999999999996: 29 steps are run."""
    assert skipped(50, 0.58) == 50 - 29


def test_images_of_several_prompts(image: Any):
    """Image i belongs to prompt i, with several images of each."""
    images = np.stack([IMAGE, IMAGE[::-1]])
    found = image(["a cat", "dog"], KEY, image=images, num_images_per_prompt=2, **QUIET).images
    keys = dj.sample_keys(KEY, 4)
    for i in range(4):
        prompt = ["a cat", "dog"][i // 2]
        alone = image(prompt, keys[i : i + 1], image=images[i // 2], **QUIET).images
        np.testing.assert_allclose(found[i], alone[0], atol=1e-5)
    assert image("a cat", KEY, image=images, **QUIET).images.shape[0] == 2


read = partial(pictures, channels=3, latent_channels=4, factor=FACTOR)


def test_pictures_of_16_bits_and_turned_ones():
    """Pillow would cut 16 bits off at 255, and leaves a photo as the camera stored it."""
    byte = (255 * IMAGE[..., 0]).astype(np.uint8)
    deep = Image.fromarray(byte.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read(deep).values, read(Image.fromarray(byte)).values)
    turned, exif = Image.new("RGB", (SIZE, 2 * SIZE)), Image.Exif()
    exif[0x0112] = 6
    turned.info["exif"] = exif.tobytes()
    turned.getexif()[0x0112] = 6
    assert read(turned).size == (SIZE, 2 * SIZE)


def test_pil_images_are_scaled():
    picture = Image.fromarray((255 * IMAGE).astype(np.uint8)).resize((SIZE + 1, 2 * SIZE + 1))
    both = [picture.convert("RGBA"), picture.convert("L")]
    assert read(both).values.shape == (2, 2 * SIZE, SIZE, 3)


@pytest.mark.parametrize("channels", [4, 9])
def test_inpainting_keeps_what_is_known(channels: int):
    pipe = dj.StableDiffusionInpaintPipeline(**parts(channels))
    call = {"mask_image": MASK, "image": IMAGE, **(QUIET | {"output_type": "latent"})}
    found, other = (np.asarray(pipe(p, KEY, **call).images) for p in ("a cat", "dog hat"))
    kept = MASK[::FACTOR, ::FACTOR] < 0.5
    assert np.abs(found - other)[0, ~kept].max() > 0.01
    if channels == 4:
        np.testing.assert_array_equal(found[0, kept], other[0, kept])
    picture = Image.fromarray((255 * MASK).astype(np.uint8))
    as_pil = Image.fromarray((255 * IMAGE).round().astype(np.uint8))
    again = pipe("a cat", KEY, **(call | {"mask_image": picture, "image": as_pil})).images
    np.testing.assert_allclose(found, again, atol=0.05)


def test_a_mask_of_ones_is_text_to_image(text: Any, inpaint: Any):
    found = inpaint("a cat", KEY, image=IMAGE, mask_image=np.ones_like(MASK), **QUIET).images
    np.testing.assert_allclose(found, text("a cat", KEY, **QUIET).images, atol=1e-5)


WIDE = np.concatenate([IMAGE, IMAGE], axis=1)


def test_depth(depth: Any):
    """Estimated from the image, or given; a constant depth is 0 everywhere."""
    call = {"image": WIDE, **QUIET}
    ramp = np.linspace(3, 5, SIZE)[:, None] * np.ones(SIZE)
    estimated, given, scaled, flat = (
        depth("a cat", KEY, depth_map=one, **call).images
        for one in (None, ramp, 10 * ramp - 7, np.full((3, 3), 4.0))
    )
    np.testing.assert_allclose(given, scaled, atol=1e-5)
    assert np.isfinite(flat).all()
    for one in (estimated, flat):
        assert np.abs(one - given).max() > 0.01


def test_the_safety_checker_makes_images_black(text: Any, recwarn: pytest.WarningsRecorder):
    model, params = checker()
    given = text.components | {"safety_checker": model}
    given["params"] = text.params | {"safety_checker": params}
    pipe = dj.StableDiffusionPipeline(**given)
    recwarn.clear()
    out = pipe("a cat", KEY, **QUIET)
    assert out.nsfw_content_detected == [False]
    assert not recwarn.list
    seen: list[np.ndarray] = []
    every = params | {"concept_embeds_weights": params["concept_embeds_weights"] * 0 - 1}
    pipe.params["safety_checker"] = every
    with pytest.warns(UserWarning, match="made 1 of 1 images black"):
        black = pipe("a cat", KEY, **QUIET, callback=lambda _i, x: seen.append(x))
    assert not np.stack(seen).any()
    assert black.nsfw_content_detected == [True]
    assert not black.images.any()
    # Latents are not checked.
    latent = QUIET | {"output_type": "latent"}
    assert pipe("a cat", KEY, **latent).nsfw_content_detected is None


# Folders.


def test_a_folder_and_back(text: Any, tmp_path: Path):
    model, params = checker()
    given = text.components | {"safety_checker": model}
    given["params"] = text.params | {"safety_checker": params}
    pipe = dj.StableDiffusionPipeline(**given)
    pipe.save_pretrained(tmp_path)
    again = dj.DiffusionPipeline.from_pretrained(tmp_path)
    assert type(again) is dj.StableDiffusionPipeline
    assert same_params(again.params, pipe.params)
    assert again.scheduler == pipe.scheduler
    assert again.parts["unet"] == pipe.unet
    assert again.parts["tokenizer"]("a cat!").tolist() == pipe.tokenizer("a cat!").tolist()
    # Another class takes the same parts; the safety checker can be turned off.
    with pytest.warns(UserWarning, match="has a safety_checker, which is turned off"):
        other = dj.StableDiffusionImg2ImgPipeline.from_pretrained(tmp_path, safety_checker=None)
    assert other.parts["safety_checker"] is None
    other.save_pretrained(tmp_path / "other")
    index = json.loads((tmp_path / "other" / "model_index.json").read_text())
    assert index["safety_checker"] == [None, None]
    assert index["_class_name"] == "StableDiffusionImg2ImgPipeline"


def test_components_that_no_pipeline_has(text: Any):
    with pytest.raises(TypeError, match="a StableDiffusionPipeline has no safety_cheker"):
        dj.StableDiffusionPipeline(**parts(), safety_cheker=3)
    with pytest.raises(TypeError, match="has no schedular"):
        dj.StableDiffusionImg2ImgPipeline.from_pipe(text, schedular=text.scheduler)


def test_components_in_place_of_the_folders(text: Any, tmp_path: Path):
    text.save_pretrained(tmp_path)
    vae = dj.AutoencoderKL.from_pretrained(tmp_path)
    changed = vae[0], jax.tree.map(lambda leaf: leaf + 1, vae[1])
    for name in ("vae", "tokenizer"):
        for file in (tmp_path / name).iterdir():
            file.unlink()
    with pytest.raises(ValueError, match=r"has no vae/config\.json"):
        dj.StableDiffusionPipeline.from_pretrained(tmp_path)
    pipe = dj.StableDiffusionPipeline.from_pretrained(
        tmp_path, vae=changed, tokenizer=text.tokenizer
    )
    assert same_params(pipe.components["params"]["vae"], changed[1])
    with pytest.raises(ValueError, match="vae must be a pair of a model and its params"):
        dj.StableDiffusionPipeline.from_pretrained(tmp_path, vae=vae[0])  # pyright: ignore


def test_unets_and_the_pipelines_that_feed_them(text: Any, tmp_path: Path):
    nine = parts(9)
    for kind in (dj.StableDiffusionPipeline, dj.StableDiffusionDepth2ImgPipeline):
        with pytest.raises(ValueError, match=r"got 9: it is for StableDiffusionInpaintPipeline$"):
            kind(**nine)
    with pytest.raises(ValueError, match=r"in_channels 5 \(latents, depth\), got 4: it is for"):
        dj.StableDiffusionDepth2ImgPipeline.from_pipe(text)
    with pytest.raises(ValueError, match=r"in_channels 4 \(latents\), got 8$"):
        dj.StableDiffusionPipeline(**parts(8))
    text.save_pretrained(tmp_path)
    edit(tmp_path / "model_index.json", _class_name="StableDiffusionInstructPix2PixPipeline")
    with pytest.raises(ValueError, match="InstructPix2PixPipeline, which is not supported"):
        dj.DiffusionPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("model_index.json", {"vae": [None, None]}, "has no vae"),
        ("model_index.json", {"unet_2": ["diffusers", "UNet"]}, "does not support: unet_2"),
        ("unet/config.json", {"cross_attention_dim": 12}, "cross_attention_dim 12, but the text"),
        ("unet/config.json", {"out_channels": 3}, "out_channels 3, but latents have 4"),
        ("text_encoder/config.json", {"vocab_size": 9}, "tokens, but the text encoder's vocab"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 13}, "rows of 13 tokens"),
    ],
)
def test_folders_whose_parts_do_not_fit(
    text: Any, tmp_path: Path, file: str, changes: dict[str, Any], words: str
):
    text.save_pretrained(tmp_path)
    edit(tmp_path / file, **changes)
    with pytest.raises(ValueError, match=words) as caught:
        dj.DiffusionPipeline.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_early_schedulers_are_repaired(text: Any):
    """The first fine-tunes have other steps in their config, and clip."""
    given = text.components | {"scheduler": dj.DDIMScheduler(steps_offset=0, clip_sample=True)}
    with pytest.warns(
        UserWarning, match="config is changed to steps_offset=1, clip_sample=False, as"
    ):
        pipe = dj.StableDiffusionPipeline(**given)
    assert pipe.scheduler == dj.DDIMScheduler(steps_offset=1, clip_sample=False)
    pipe.scheduler = dj.DDIMScheduler()
    assert pipe.scheduler == dj.DDIMScheduler()


@pytest.mark.parametrize("kind", [dj.LCMScheduler, dj.TCDScheduler])
def test_schedulers_of_distilled_networks(text: Any, kind: Any):
    """From a config of any steps_offset, which they do not read."""
    pipe = dj.StableDiffusionPipeline(**text.components | {"scheduler": kind()})
    assert pipe.scheduler == kind()
    made = kind.from_config(text.scheduler.config)
    assert made.steps_offset == 1
    np.testing.assert_array_equal(made.table(4).mix, kind().table(4).mix)


@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_one_file(tmp_path: Path, kind: str):
    """All components but the tokenizer come from the file; what it lacks is named."""
    given = ldm.small()
    state, file = ldm.one_file(given), tmp_path / f"sd.{kind}"
    ldm.save(file, state) if kind == "safetensors" else ldm.save_ckpt(file, state)
    tokens = ["c", "a", "t", "c</w>", "a</w>", "t</w>", BOS, EOS]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = dj.CLIPTokenizer.from_vocabulary(vocab, [], max_length=7)
    tokenizer.save_pretrained(tmp_path / "pipe" / "tokenizer")
    pipe = dj.StableDiffusionPipeline.from_single_file(file, tokenizer=tmp_path / "pipe")
    for name, model in ldm.SMALL.items():
        assert same_params(pipe.params[name], to_flax(given[name], model.shapes()))
        assert type(pipe.parts[name]) is type(model)
    assert pipe.unet.attention_head_dim == 8
    assert pipe.tokenizer("cat").tolist() == tokenizer("cat").tolist()
    fields = {**BETAS, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}
    assert pipe.scheduler == dj.DDIMScheduler(**fields)
    configs = {"unet": {"attention_head_dim": 2}, "scheduler": {"prediction_type": "v_prediction"}}
    vae = pipe.vae, pipe.params["vae"]
    again = dj.StableDiffusionPipeline.from_single_file(
        file, tokenizer=tokenizer, configs=configs, vae=vae, dtype=jnp.bfloat16
    )
    assert again.unet.attention_head_dim == 2
    assert again.unet.dtype == jnp.bfloat16
    assert again.scheduler.config.prediction_type == "v_prediction"
    assert again.params["vae"] is vae[1]
    other = dj.CLIPTokenizer.from_vocabulary(vocab, [], max_length=7, pad_token="c")
    with pytest.warns(UserWarning, match="pads with 'c', and Stable Diffusion 1 with '<.endoftext"):
        dj.StableDiffusionPipeline.from_single_file(file, tokenizer=other)


def test_files_that_lack_something(tmp_path: Path):
    given = ldm.small()
    whole = ldm.save(tmp_path / "sd.safetensors", ldm.one_file(given))
    with pytest.raises(ValueError, match="has no tokenizer: pass tokenizer="):
        dj.StableDiffusionPipeline.from_single_file(whole)
    with pytest.raises(TypeError, match="unknown options nothing"):
        dj.StableDiffusionPipeline.from_single_file(whole, tokenizer="x", nothing=1)  # pyright: ignore
    tokenizer = parts()["tokenizer"]
    for option in ({"nothing": 1}, {"revision": "main"}, {"variant": "fp16"}):
        with pytest.raises(TypeError, match=f"unknown options {next(iter(option))}"):
            dj.StableDiffusionPipeline.from_single_file(whole, tokenizer=tokenizer, **option)
    with pytest.raises(ValueError, match="has no moving average"):
        dj.StableDiffusionPipeline.from_single_file(whole, ema=True)
    del given["vae"]
    unet = ldm.save(tmp_path / "unet.safetensors", ldm.one_file(given))
    with pytest.raises(ValueError, match="has no tokenizer, vae: pass tokenizer="):
        dj.StableDiffusionPipeline.from_single_file(unet)
    with pytest.raises(FileNotFoundError):
        dj.StableDiffusionPipeline.from_single_file(tmp_path / "none.ckpt")


# Bad input.


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": None}, "pass a prompt, or prompt_embeds"),
        ({"prompt": 3}, "prompt must be a text or a list of texts, got int"),
        ({"prompt": ["a", None]}, "got NoneType None"),
        (
            {"negative_prompt": ["a", "b"]},
            "negative prompts must be one, or 1 as the prompts; got 2",
        ),
        ({"negative_prompt": 7}, "negative_prompt must be a text"),
        ({"prompt_embeds": np.zeros((1, TOKENS, WIDTH))}, "pass prompt or prompt_embeds, not both"),
        (
            {"prompt": None, "prompt_embeds": np.zeros((1, TOKENS, 9), np.float32)},
            rf"prompt_embeds must be of shape \(prompts, tokens, {WIDTH}\), got shape",
        ),
        (
            {"prompt": None, "prompt_embeds": np.zeros((1, 3, WIDTH), np.float32)},
            "must have equally many tokens, got 3 and 12",
        ),
        ({"height": 15}, "height and width must be multiples of 2, got 15x16"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt must be at least 1"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a finite number, got nan"),
        ({"sharding": 3}, "sharding must be a NamedSharding"),
        ({"clip_skip": 2}, r"clip_skip must lie in 0\.\.1, got 2"),
        ({"guidance_rescale": 2}, r"guidance_rescale must lie in \[0, 1\]"),
        ({"output_type": "pt"}, '"np", "jax" or "latent", got \'pt\''),
        ({"eta": 0.5}, "PNDMScheduler has no option eta"),
        ({"x_T": np.zeros((1, 8, 8, 3), np.float32)}, r"x_T must be of shape \(1, 8, 8, 4\)"),
        ({"callback_every": 0}, "callback_every must be at least 1"),
    ],
)
def test_wrong_arguments(text: Any, monkeypatch: pytest.MonkeyPatch, options: Any, words: str):
    monkeypatch.setattr("ddpm_jax.pipelines.stable_diffusion.run_table", None)
    prompt = options.pop("prompt", "a cat") if "prompt" in options else "a cat"
    with pytest.raises(ValueError, match=words):
        text(prompt, KEY, **(QUIET | options))


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": 0}, "strength must be above 0 and at most 1, got 0"),
        ({"strength": 1.5}, "strength must be above 0"),
        ({"strength": 0.2}, "strength 0.2 of 3 steps leaves none"),
        ({"image": IMAGE[:5]}, "image must have sides that are multiples of 2, got 5x16"),
        ({"image": 2 * IMAGE}, r"image must lie in \[0, 1\], got"),
        ({"image": IMAGE[..., :2]}, "image must have 3 channels"),
        ({"image": np.zeros((16, 16, 4), np.float32)}, "image must have 3 channels"),
        ({"image": Image.fromarray(IMAGE[..., 0])}, "mode F has no known range"),
        ({"strength": 0.5, "table": dj.PNDMScheduler().table(3)}, "table= replaces strength"),
        ({"strength": "1"}, "strength must be above 0 and at most 1, got '1'"),
        ({"image": "cat.png"}, "image must be a PIL image, a list of them, or an array"),
        ({"image": (255 * IMAGE).astype(np.uint8)}, "got an array of uint8"),
        ({"image": IMAGE * np.nan}, "image must be finite"),
        ({"image": [Image.new("RGB", (16, 16)), Image.new("RGB", (8, 8))]}, "must have one size"),
        ({"image": Image.new("RGB", (1, 9))}, "must be at least 2x2, got 9x1"),
    ],
)
def test_wrong_images(image: Any, options: Any, words: str):
    with pytest.raises(ValueError, match=words):
        image("a cat", KEY, **(QUIET | {"image": IMAGE} | options))


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_image": MASK[:8]}, "mask_image must have the size of image, 16x16; got 8x16"),
        ({"mask_image": 3 * MASK}, r"mask_image must lie in \[0, 1\]"),
        ({"mask_image": np.stack([MASK] * 3)}, "got 3 masks for 1 images"),
        ({"height": 8}, "image must be 8x16, got 16x16"),
        ({"image": IMAGE[..., 0]}, "image must be"),
        ({"table": dj.PNDMScheduler().table(3)}, "with table= pass strength"),
        ({"image": np.zeros((8, 8, 4), np.float32)}, "image must have 3 channels"),
    ],
)
def test_wrong_masks(inpaint: Any, options: Any, words: str):
    with pytest.raises(ValueError, match=words):
        inpaint("a cat", KEY, **(QUIET | {"image": IMAGE, "mask_image": MASK} | options))


def test_images_and_prompts_of_other_numbers(image: Any):
    with pytest.raises(ValueError, match="images must be one, or 2 as the prompts; got 3"):
        image(["a", "b"], KEY, image=np.stack([IMAGE] * 3), **QUIET)
    with pytest.raises(ValueError, match="got 3 keys for a batch of 2 images"):
        image(["a", "b"], dj.sample_keys(KEY, 3), image=IMAGE, **QUIET)


@pytest.mark.usefixtures("as_users_run")
def test_wrong_depths(depth: Any):
    for given, words in ((np.zeros(3), r"depth_map must be \(H, W\)"), (MASK * np.nan, "finite")):
        with pytest.raises(ValueError, match=words):
            depth("a cat", KEY, image=IMAGE, depth_map=given, **QUIET)
    with pytest.raises(ValueError, match="got 3 depth maps for 1 images"):
        depth("a cat", KEY, image=IMAGE, depth_map=np.stack([MASK] * 3), **QUIET)
    bare = dj.StableDiffusionDepth2ImgPipeline.from_pipe(depth, depth_estimator=None)
    with pytest.raises(ValueError, match="there is no depth_estimator: pass depth_map"):
        bare("a cat", KEY, image=IMAGE, **QUIET)


def test_a_key_is_needed(text: Any):
    with pytest.raises(TypeError, match="unexpected keyword argument 'generator'"):
        text("a cat", KEY, generator=1)
    with pytest.raises(TypeError, match="a key is jax"):
        text("a cat", 3)


def test_pndm_ends_where_it_should_at_any_strength():
    """With exact predictions the end is alpha_0 x0 + sigma_0 eps, wherever the run begins."""
    one, scheduler = jnp.ones((1, 1, 1, 1)), parts()["scheduler"]
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2

    def denoise(params: Any, x: jax.Array, timestep: jax.Array) -> jax.Array:
        return jnp.full_like(x, params["eps"])

    for steps, strength in ((50, 0.8), (20, 0.5)):
        table = scheduler.table(steps, start=steps - int(steps * strength))
        alpha, sigma = table.level[0]
        signal = dj.sample(denoise, {"eps": 0.0}, table, alpha * one)
        noise = dj.sample(denoise, {"eps": 1.0}, table, sigma * one)
        np.testing.assert_allclose(signal.item(), (1 - betas[0]) ** 0.5, rtol=1e-4)
        np.testing.assert_allclose(noise.item(), betas[0] ** 0.5, rtol=1e-2)


def test_depth_of_another_shape(depth: Any):
    """Depth is scaled to the latents with its axes in place."""
    ramp = np.linspace(0, 1, 2 * SIZE)[:, None] * np.ones(SIZE)
    down, across = (
        depth("a cat", KEY, image=WIDE, depth_map=one, **QUIET).images
        for one in (ramp[::2], ramp.T)
    )
    assert down.shape == (1, SIZE, 2 * SIZE, 3)
    assert np.abs(down - across).max() > 0.01


def test_an_image_is_encoded_and_comes_back(text: Any) -> None:
    """The way up is the inverted table from the posterior's mean; more steps come back closer."""
    ddim = dj.DDIMScheduler.from_config(text.scheduler.config, clip_sample=False)
    text = dj.StableDiffusionPipeline.from_pipe(text, scheduler=ddim)
    image: Any = dj.StableDiffusionImg2ImgPipeline.from_pipe(text)
    down = image.scheduler.table(6, dtype=np.float64)
    x_T = image.encode("a cat", image=IMAGE, num_inference_steps=6, progress=False)
    posterior = applied(image.vae, image.params["vae"], 2 * IMAGE[None] - 1, method="encode")
    latents = image.vae.scaling_factor * posterior.mean
    shape = (text.tokenizer.max_length, text.unet.cross_attention_dim)
    prompts = check_prompts("a cat", None, None, None, shape=shape, guided=False)
    context = text.conditions(prompts, 0, np.zeros(1, int))["context"]

    def denoise(params: Any, x: Any, timestep: Any) -> Any:
        return text.unet.apply({"params": params}, x, timestep, context)

    expected = dj.sample(denoise, text.params["unet"], dj.inverted(down), latents)
    np.testing.assert_allclose(x_T, expected, rtol=1e-3, atol=1e-4)
    errors = []
    for steps in (6, 60):
        x_T = image.encode("a cat", image=IMAGE, num_inference_steps=steps, progress=False)
        given = {"guidance_scale": 1.0, "progress": False, "output_type": "latent"}
        back = text("a cat", KEY, x_T=x_T, num_inference_steps=steps, **given).images
        errors.append(float(jnp.abs(back - latents).max()))
    assert errors[1] < 0.5 * errors[0], errors


def test_a_guide_leads_the_latents(text: Any) -> None:
    mask = np.zeros((LATENTS, LATENTS, 1), np.float32)
    mask[: LATENTS // 2] = 1
    y = mask[None] * np.ones((1, 1, 1, text.vae.latent_channels), np.float32)
    guide = dj.diffpir(dj.Masked(mask), y)
    table = dj.DDIMScheduler.from_config(text.scheduler.config, set_alpha_to_one=True).table(3)
    given = {"progress": False, "output_type": "latent", "table": table}
    found = text("a cat", KEY, guide=guide, **given).images
    np.testing.assert_allclose(found[:, : LATENTS // 2], 1.0, atol=1e-4)
    assert float(jnp.abs(found[:, LATENTS // 2 :] - 1).max()) > 0.1
