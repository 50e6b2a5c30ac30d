# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Text to image
#
# Pictures from prompts with Stable Diffusion's networks, in JAX: prompts, guidance, schedulers,
# image to image, inpainting, and a look inside. The model is a very small one that comes with the
# package. It draws faces of 32 x 32 pixels, on two CPU cores, and knows only the words of its
# captions. Its folder has the layout of Stable Diffusion, so all code here is for large checkpoints
# too.
#
# The first cell installs the package only if it is missing: from the clone beside this notebook, or
# from what PACKAGE names, which may be a wheel, a folder or a git address ("git+https://...").

# %%
PACKAGE = ""

try:
    import ddpm_jax as dj
except ImportError:
    import subprocess
    import sys
    from pathlib import Path

    if not PACKAGE and (Path.cwd().parent / "pyproject.toml").exists():
        PACKAGE = str(Path.cwd().parent)  # the clone beside this notebook
    if not PACKAGE:
        raise ImportError("ddpm_jax is missing: set PACKAGE in the first cell") from None
    wanted = f"ddpm-jax[notebooks] @ {PACKAGE}" if "://" in PACKAGE else f"{PACKAGE}[notebooks]"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", wanted], check=True)
    import ddpm_jax as dj

import os

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

# %% [markdown]
# One line chooses the model: a bundled name, a folder, or a repository of the Hugging Face hub such
# as "stable-diffusion-v1-5/stable-diffusion-v1-5", which wants a GPU, other prompts and
# `guidance_scale=7.5`. The files are those that PyTorch diffusers reads. PyTorch is not needed.

# %%
MODEL = "avatars"
STEPS = 8 if "DDPM_JAX_FAST" in os.environ else 25  # fewer when the notebook is only checked

pipe = dj.DiffusionPipeline.from_pretrained(MODEL)
print(type(pipe).__name__)
for name, part in pipe.parts.items():
    count = sum(leaf.size for leaf in jax.tree.leaves(pipe.params.get(name)))
    if part is not None:
        print(f"{name:14} {type(part).__name__:21} {f'{count:,} params' if count else ''}".rstrip())

# %% [markdown]
# ## Prompt and picture
#
# A call takes a prompt and a key. Here are eight pictures of one prompt. The first call compiles,
# and later calls do not.

# %%
OPTIONS = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "progress": False}

prompt = "a smiling person with green hair and glasses, wearing a purple shirt"
key = jax.random.key(0)
pictures = pipe(prompt, key, num_images_per_prompt=8, **OPTIONS).images
dj.make_grid(pictures, columns=8)

# %% [markdown]
# Several prompts make several pictures.

# %%
prompts = [
    "a person with long pink hair",
    "a sad person with a red hat",
    "a happy character with dark skin and white hair",
    "a person with sunglasses, wearing a black shirt",
    "a person with a beard and a blue hat",
    "blond hair, pale skin, yellow shirt",
    "a frowning portrait with short grey hair",
    "a smiling person with tan skin, a beard and glasses",
]
dj.make_grid(pipe(prompts, key, **OPTIONS).images, columns=8)

# %% [markdown]
# ## Keys
#
# All randomness comes from the key. Picture i draws only from `fold_in(key, i)`, so it does not
# depend on the batch. An array of keys, one for each picture, says which noise is used. Here all
# eight prompts have the noise of the fourth picture above: what the prompts leave open, they now
# have in common.

# %%
keys = dj.sample_keys(key, 8)
fourth = jnp.repeat(keys[3:4], 8)
hair = ["black", "brown", "blond", "red", "green", "blue", "purple", "white"]
prompts = [f"a person with {color} hair" for color in hair]
dj.make_grid(pipe(prompts, fourth, **OPTIONS).images, columns=8)

# %% [markdown]
# ## Guidance
#
# Every step evaluates the network with the prompt and without it, and moves away from the second
# answer. `guidance_scale` says how far. A low scale is vague about the prompt; a high one is
# exact, exaggerates colors, and at last spoils the picture. The rows are the scales 1.5, 3, 7.5 and
# 15, with the same noise in each column. The scale is data: nothing compiles.

# %%
sweep = []
for scale in (1.5, 3.0, 7.5, 15.0):
    chosen = OPTIONS | {"guidance_scale": scale}
    sweep += pipe(
        "a person with blue hair and a beard", keys, num_images_per_prompt=8, **chosen
    ).images
dj.make_grid(sweep, columns=8)

# %% [markdown]
# A negative prompt takes the place of "without the prompt". The second row has the noise of the
# first, and moves away from a blue hat.

# %%
rows = []
for negative in (None, "a blue hat"):
    rows += pipe(
        "a person with a hat", keys, negative_prompt=negative, num_images_per_prompt=8, **OPTIONS
    ).images
dj.make_grid(rows, columns=8)

# %% [markdown]
# ## Swap the scheduler
#
# Any scheduler accepts the config of another, and the same key starts from the same noise. The
# rows are DDIM and Euler with five steps, and DDIM with more. They follow the same path, so five
# steps already show who it will be. Nothing compiles: a scheduler is a table of numbers.

# %%
ddim = pipe.scheduler
euler = dj.EulerDiscreteScheduler.from_config(ddim.config, timestep_spacing="trailing")
rows = []
for scheduler, steps in ((ddim, 5), (euler, 5), (ddim, STEPS)):
    pipe.scheduler = scheduler
    chosen = OPTIONS | {"num_inference_steps": steps}
    rows += pipe(prompt, keys, num_images_per_prompt=8, **chosen).images
pipe.scheduler = ddim
dj.make_grid(rows, columns=8)

# %% [markdown]
# ## Image to image
#
# The run starts in the middle, from a noised picture. `strength` is the part of the steps that is
# run: at 0.3 much of the picture stays, at 0.9 little. `from_pipe` shares the weights.

# %%
image_to_image = dj.StableDiffusionImg2ImgPipeline.from_pipe(pipe)
original = pictures[0]
rows = [original] * 8
for strength in (0.3, 0.6, 0.9):
    rows += image_to_image(
        "a person with red hair, wearing a yellow shirt",
        keys,
        image=original,
        strength=strength,
        num_images_per_prompt=8,
        **OPTIONS,
    ).images
dj.make_grid(rows, columns=8)

# %% [markdown]
# ## Inpainting
#
# The white part of a mask is made anew, and the rest stays. Here are the picture, the mask, and
# eight pictures with a hat.

# %%
width, height = original.size
mask = Image.new("L", original.size)
mask.paste(255, (0, 0, width, 3 * height // 8))
dj.make_grid([original, mask.convert("RGB")], columns=8)

# %%
inpaint = dj.StableDiffusionInpaintPipeline.from_pipe(pipe)
hats = inpaint(
    "a person with glasses and a blue hat",
    keys,
    image=original,
    mask_image=mask,
    num_images_per_prompt=8,
    **OPTIONS,
).images
dj.make_grid(hats, columns=8)

# %% [markdown]
# ## A look inside
#
# A pipeline only calls functions. The tokenizer turns a prompt into ids, between a begin and an
# end token that also fills the row, and the text encoder turns each id into features.

# %%
tokenizer, text_encoder, params = pipe.tokenizer, pipe.text_encoder, pipe.params


@jax.jit
def encode(ids):
    return text_encoder.apply({"params": params["text_encoder"]}, ids)


ids = tokenizer([prompt] * 8)
context, negative = encode(ids), encode(tokenizer([""] * 8))
print(ids[0])
print(context.shape)

# %% [markdown]
# Since features are arrays, they can be mixed. Here is the way from one prompt to another with one
# noise.

# %%
ends = encode(tokenizer(["short black hair, glasses"] * 4 + ["long pink hair, a red hat"] * 4))
weights = jnp.linspace(0, 1, 8)[:, None, None]
between = (1 - weights) * ends[0] + weights * ends[-1]
dj.make_grid(pipe(None, fourth, prompt_embeds=between, **OPTIONS).images, columns=8)

# %% [markdown]
# The network does not see pixels, but latents: a smaller picture with four channels, which the
# autoencoder makes of an image, and turns back. Here are a picture, the channels of its latents,
# and the picture that they are decoded to.

# %%
vae = pipe.vae


@jax.jit
def to_latents(images):  # in [0, 1]
    variables = {"params": params["vae"]}
    return vae.scaling_factor * vae.apply(variables, 2 * images - 1, method="encode").mean


@jax.jit
def decode(latents):
    variables = {"params": params["vae"]}
    images = vae.apply(variables, latents / vae.scaling_factor, method="decode")
    return (images / 2 + 0.5).clip(0, 1)


images = np.stack(pictures) / np.float32(255)
latents = to_latents(images)
print(f"images {images.shape}, latents {latents.shape}")

channels = (latents[0] / 4 + 0.5).clip(0, 1).transpose(2, 0, 1)
channels = np.kron(channels, np.ones((1, vae.factor, vae.factor)))  # enlarged
gray = np.repeat(channels[..., None], 3, axis=-1)
dj.make_grid(np.concatenate([images[:1], gray, decode(latents)[:1]]), columns=8)

# %% [markdown]
# The loop is one function. A scheduler writes its run into a table before it starts, `dj.guided`
# makes a guided network of any network, and `dj.sample_with_history` runs the table and also
# returns the latents that the network predicts on the way. The columns are steps: who it will be
# is decided early, and detail comes late.

# %%
unet, table = pipe.unet, ddim.table(STEPS)


def network(params, x, timestep, context):
    return unet.apply({"params": params}, x, timestep, context)


given = {"network": params["unet"], "context": context, "negative": negative, "scale": 3.0}
x_T = dj.prior(table, keys, latents.shape[1:])
x_0, history = dj.sample_with_history(dj.guided(network), given, table, x_T, every=-(-STEPS // 8))
np.testing.assert_allclose(decode(x_0), images, atol=0.01)  # the pictures of the first call

seen = np.stack([decode(step) for step in history], axis=1)
dj.make_grid(np.concatenate(seen[:3]), columns=seen.shape[1])

# %% [markdown]
# Functions can be compiled into others, mapped over a batch of anything, and differentiated:
# `docs/text_to_image.md` sweeps the guidance scale with `vmap`, and lists all options, what
# compiles and when, and what diffusers' arguments are called here. `examples/avatars` trains the
# model of this notebook.
