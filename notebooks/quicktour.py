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
# # A quick tour of ddpm_jax
#
# Load a diffusion model, sample from it, look inside, write the loop by hand, change the sampler,
# and differentiate through it. The model is a small one for 8 x 8 handwritten digits that comes
# with the package, so everything runs on a CPU in a minute or two. `train.ipynb` trains such a
# model.
#
# The first cell installs the package only if it is missing: from the clone beside this notebook, or
# from what PACKAGE names, which may be a wheel, a folder or a git address ("git+https://..."). It
# does not replace jax: the package needs no newer version than the one on Colab.

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
import matplotlib.pyplot as plt
import numpy as np

# %% [markdown]
# Two helpers: the amount of work (less when the notebook is only checked), and a function that
# shows rows of images with labels.

# %%
CHECKING = "DDPM_JAX_FAST" in os.environ
DDPM_STEPS = 50 if CHECKING else 250
DESCENTS = 5 if CHECKING else 40


def show(rows, labels=None, titles=None):
    """Shows rows of 8 x 8 images, each (B, 8, 8, 1), with a label to the left of each row."""
    count = len(rows[0])
    figure, axes = plt.subplots(len(rows), 1, figsize=(0.72 * count + 1.6, 0.78 * len(rows) + 0.2))
    for k, (axis, row) in enumerate(zip(np.atleast_1d(axes), rows, strict=True)):
        tiles = np.pad(np.asarray(row)[..., 0], ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
        axis.imshow(np.concatenate(list(tiles), axis=1), "gray", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[], frame_on=False)
        if labels:
            axis.set_ylabel(labels[k], rotation=0, ha="right", va="center")
        if titles and k == 0:
            axis.set_xticks(9 * np.arange(count) + 3.5, titles)
            axis.xaxis.tick_top()
            axis.tick_params(length=0)
    figure.tight_layout(h_pad=0.3)
    plt.show()


# %% [markdown]
# ## Load and sample
#
# `from_pretrained` accepts a bundled model, a folder, or a repository of the Hugging Face hub. The
# same line, `dj.DDPMPipeline.from_pretrained("google/ddpm-cat-256")`, loads a model of cats from
# weights that PyTorch diffusers trained and saved, without PyTorch. DDPM as published needs 1000
# steps, which is the default. A quarter of them is enough here.

# %%
pipe = dj.DDPMPipeline.from_pretrained("digits")
images = pipe(
    jax.random.key(0), batch_size=20, num_inference_steps=DDPM_STEPS, progress=False
).images
dj.make_grid(images, columns=10)

# %% [markdown]
# All randomness comes from the key. Image i draws only from `fold_in(key, i)`, so it does not
# depend on the batch. Here is the seventeenth image again, alone, from its own key and as an array.

# %%
keys = dj.sample_keys(jax.random.key(0), 20)
alone = pipe(keys[16:17], num_inference_steps=DDPM_STEPS, output_type="np", progress=False).images
print(alone.shape, alone.min(), alone.max())
dj.make_grid(alone)

# %% [markdown]
# ## Look inside
#
# A pipeline is a model, its params and a scheduler. The model predicts the noise in a noised image.
# Its params are a plain nested dict with PyTorch's names.

# %%
model, params, scheduler = pipe.unet, pipe.params, pipe.scheduler
print(f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,} params in {', '.join(params)}")
print(model.config.block_out_channels, model.config.down_block_types)


batch = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
print(jax.eval_shape(lambda x: model.apply({"params": params}, x, 500), batch))

# %% [markdown]
# The scheduler is a frozen config without state. It defines how training noised the images: at
# timestep t an image x0 becomes `alpha x0 + sigma noise`.

# %%
print(scheduler)

schedule = scheduler.noise_schedule
figure, axis = plt.subplots(figsize=(5, 2.2))
axis.plot(schedule.alpha, label="alpha: image")
axis.plot(schedule.sigma, label="sigma: noise")
axis.set(xlabel="timestep", ylim=(0, 1.05))
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
plt.show()

# %%
x0 = jnp.repeat(2 * alone - 1, 8, axis=0)  # images are in [0, 1], the network's in [-1, 1]
timesteps = jnp.array([0, 50, 100, 200, 300, 500, 700, 999])
z = jnp.repeat(dj.noise(keys[:1], 0, (8, 8, 1)), 8, axis=0)
show([scheduler.add_noise(x0, z, timesteps)], ["noised"], [f"t = {t}" for t in timesteps])

# %% [markdown]
# ## Write the loop
#
# A scheduler writes its whole run into a table before the run starts, with one row for each
# evaluation of the network. The loop then only evaluates the network and takes a step. `dj.step` is
# plain algebra: noise is an argument, drawn here by `dj.noise` from each image's key and the row
# number.

# %%
SHAPE = (8, 8, 1)


def denoise(params, x, timestep):
    return model.apply({"params": params}, x, timestep)


network = jax.jit(denoise)
step = jax.jit(dj.step)


def run(table, keys, seen=None):
    """The samples. `seen(i, row, x)` is called after each step."""
    registers = table.init(dj.prior(table, keys, SHAPE))
    for i, row in enumerate(table):
        output = network(params, row.in_scale * registers[0], row.timestep)
        registers = step(row, registers, output, dj.noise(keys, i, SHAPE))
        if seen:
            seen(i, row, registers[0])
    return registers[0]


# %% [markdown]
# DDIM in 40 steps, with the samples after every fifth step:

# %%
ddim = dj.DDIMScheduler.from_config(scheduler.config)
table = ddim.table(40)
few = keys[:5]
looks, titles = [dj.prior(table, few, SHAPE)], ["noise"]


def look(i, row, x):
    if i % 5 == 4:
        looks.append(x)
        titles.append(f"row {i + 1}")


run(table, few, look)
show(np.swapaxes(looks, 0, 1), titles=titles)

# %% [markdown]
# `dj.sample` is the same run as one compiled program. `dj.sample_with_history` also returns the
# clean image that the network predicts, here at every fifth row. The prediction shows the digit
# long before the noise is gone.

# %%
samples, previews = dj.sample_with_history(
    denoise, params, table, dj.prior(table, few, SHAPE), every=5
)
show(np.swapaxes(previews, 0, 1), titles=titles[1:])

# %% [markdown]
# ## Swap schedulers
#
# Any scheduler accepts the config of another. The same keys give the same initial noise for all of
# them. DDIM, PNDM and Euler follow the same path and find the same digits. DDPM and Euler ancestral
# add noise during the run and end elsewhere.

# %%
config = scheduler.config
tables = {
    "DDPM": dj.DDPMScheduler.from_config(config).table(100),
    "Euler ancestral": dj.EulerAncestralDiscreteScheduler.from_config(config).table(30),
    "DDIM": dj.DDIMScheduler.from_config(config).table(30),
    "Euler": dj.EulerDiscreteScheduler.from_config(config).table(30),
    "PNDM": dj.PNDMScheduler.from_config(config).table(21),
}
show(
    [run(table, keys[:10]) for table in tables.values()],
    [f"{name}, {len(table)} evaluations" for name, table in tables.items()],
)

# %% [markdown]
# How many evaluations are enough? Compare with a long run from the same noise. Without clipping,
# DDIM and Euler are the same first-order method in two notations: twice the steps, half the error.
# PNDM needs nine more evaluations for its start, and then its error falls faster.

# %%
plain = {"timestep_spacing": "trailing"}
solvers = {
    "DDIM": dj.DDIMScheduler.from_config(config, clip_sample=False, **plain),
    "Euler": dj.EulerDiscreteScheduler.from_config(config, **plain),
    "PNDM": dj.PNDMScheduler.from_config(config, **plain),
}
exact = run(solvers["PNDM"].table(50 if CHECKING else 200), keys[:10])

figure, axis = plt.subplots(figsize=(5, 3.2))
for (name, solver), mark in zip(solvers.items(), ["o-", "x--", "s-"], strict=True):
    runs = [solver.table(n) for n in (5, 10, 20, 40)]
    errors = [jnp.sqrt(jnp.mean((run(table, keys[:10]) - exact) ** 2)) for table in runs]
    axis.loglog([len(table) for table in runs], errors, mark, label=name)
axis.set(xlabel="evaluations of the network", ylabel="RMS distance to a long run")
axis.set_xticks([5, 10, 20, 40], ["5", "10", "20", "40"], minor=False)
axis.minorticks_off()
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# A pipeline also accepts any of them: `pipe.scheduler = solvers["PNDM"]`.
#
# ## Read a table
#
# `dj.describe` prints the update of each row. DDIM has one register, x. PNDM stores past outputs in
# more registers, r1, r2, ..., and takes Runge-Kutta steps until it has enough of them.

# %%
print(dj.describe(ddim.table(5, eta=0.5)))
print()
print(dj.describe(dj.PNDMScheduler.from_config(config, skip_prk_steps=True).table(5)))

# %% [markdown]
# ## Sweep eta
#
# A table is a pytree of numbers, so a sampler's options are data. `dj.stack` converts several
# tables to one structure, and `jax.vmap` runs all of them as one program. Here it is a sweep over
# eta, the amount of noise that DDIM adds, from 0 to the amount of DDPM.

# %%
etas = [0.0, 0.25, 0.5, 0.75, 1.0]
sweep = dj.stack([ddim.table(20, eta=eta) for eta in etas])
x_T = dj.prior(ddim.table(20), keys[:10], SHAPE)
swept = jax.vmap(lambda table: dj.sample(denoise, params, table, x_T, keys[:10]))(sweep)
show(swept, [f"eta = {eta:g}" for eta in etas])

# %% [markdown]
# ## Differentiate through the sampler
#
# `dj.sample` is differentiable, so any loss on the final image has a gradient with respect to the
# initial noise. Suppose that only the upper half of a digit is known. Gradient descent changes the
# noise until the sample agrees with the known half. The second term of the loss keeps the noise
# close to the Gaussian of the training. The model completes the lower half, differently for each
# initial noise.

# %%
short = solvers["DDIM"].table(8)
target = 2 * alone - 1
known = np.zeros((1, 8, 8, 1), np.float32)
known[:, :4] = 1


def loss(x_T):
    x = dj.sample(denoise, params, short, x_T)
    return jnp.sum(known * (x - target) ** 2) + 0.01 * jnp.sum(x_T**2), x


@jax.jit
def descend(x_T, velocity):
    slope, x = jax.grad(loss, has_aux=True)(x_T)
    velocity = 0.8 * velocity - 0.02 * slope
    return x_T + velocity, velocity, x


noise = dj.prior(short, keys[:6], SHAPE)
velocity, stages = jnp.zeros_like(noise), []
for i in range(DESCENTS + 1):
    noise, velocity, x = descend(noise, velocity)
    if i in (0, DESCENTS // 5, DESCENTS):
        stages.append(x)

half = np.where(known, target, 0)
show(
    [np.repeat(half, 6, axis=0), *stages],
    ["known", "before", f"{DESCENTS // 5} steps", f"{DESCENTS} steps"],
)

# %% [markdown]
# The numbers of the table have gradients too: `docs/tables.md` shows how, writes a new sampler from
# the equations of its paper, and names the limits of tables. `docs/denoise.md` uses networks of
# other libraries, and `docs/devices.md` uses several devices.
