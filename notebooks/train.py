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
# # Train a model
#
# From random weights to readable handwritten digits, in under four minutes on two cores of a CPU.
# The run is stopped and resumed, the samples become sharper, and at the end the model is a folder
# that PyTorch diffusers can load.
#
# The first cell installs the package and what this notebook needs, only if something is missing:
# from the clone beside this notebook, or from what PACKAGE names, which may be a wheel, a folder or
# a git address ("git+https://...").

# %%
import importlib.util
import subprocess
import sys
from pathlib import Path

PACKAGE = ""
NEEDED = ["ddpm_jax", "grain", "tensorboardX", "matplotlib", "sklearn"]

if any(importlib.util.find_spec(name) is None for name in NEEDED):
    if not PACKAGE and (Path.cwd().parent / "pyproject.toml").exists():
        PACKAGE = str(Path.cwd().parent)  # the clone beside this notebook
    if not PACKAGE:
        raise ImportError("ddpm_jax is missing: set PACKAGE in the first cell")
    wanted = f"ddpm-jax[notebooks] @ {PACKAGE}" if "://" in PACKAGE else f"{PACKAGE}[notebooks]"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", wanted], check=True)

# %%
import _thread
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import ddpm_jax as dj
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import weights_convert
from ddpm_jax.training import PRESETS, make_plan, train
from ddpm_jax.training.run.logs import read_log
from IPython.display import display
from PIL import Image

CHECKING = "DDPM_JAX_FAST" in os.environ  # less work when the notebook is only being checked

# %% [markdown]
# ## Settings
#
# All settings of a run are one frozen value. A preset is such a value, and `replace` changes single
# fields. The bundled digits were trained with "tiny": 6,000 updates in about twenty minutes. Here a
# network of two thirds its size gets fewer updates, with twice the learning rate.

# %%
OUT = Path("digits-run")
STEPS, STOP_AT, EVERY = (40, 10, 10) if CHECKING else (1200, 400, 100)

tiny = PRESETS["tiny"]
settings = replace(
    tiny,
    model=replace(tiny.model, layers_per_block=1),
    optimizer=replace(tiny.optimizer, learning_rate=2e-3, warmup_steps=STEPS // 12),
    ema=replace(tiny.ema, decay=0.995),
    loop=replace(tiny.loop, steps=STEPS, log_every=EVERY // 5, sample_every=EVERY, sample_num=16),
)
print(settings.model.block_out_channels, settings.optimizer, settings.ema, sep="\n")

# %% [markdown]
# `make_plan` opens the images, makes the network and its loss, and checks that they match, before
# any long work. The digits are those of scikit-learn. For your own images, set
# `data=Data(name="photos/", resolution=32)`: a folder, an array file, or a data set of the Hugging
# Face hub.

# %%
shutil.rmtree(OUT, ignore_errors=True)  # of an earlier run
plan = make_plan(settings, OUT)
count = sum(leaf.size for leaf in jax.tree.leaves(plan.model.shapes()))
print(f"{len(plan.source)} images of shape {plan.source.shape}, a network of {count:,} params")

real = np.stack([plan.source[i]["image"] for i in range(40)])
dj.make_grid(real / 2 + 0.5, columns=10)  # the network's range is [-1, 1], that of images [0, 1]

# %% [markdown]
# ## Train, and stop
#
# `train` runs the loop: it writes a log, samples and checkpoints into the folder. The stop button
# of the notebook stops it after the current update, and so does the SIGTERM that a cluster sends.
# Here a thread presses the button as soon as the log has enough updates.


# %%
def press_stop(at):
    while max((line["step"] for line in read_log(OUT)), default=0) < at:
        time.sleep(0.01)
    _thread.interrupt_main()


threading.Thread(target=press_stop, args=(STOP_AT,), daemon=True).start()
outcome = train(plan)
print(f"{outcome.stopped.name}: {outcome.step} of {STEPS} updates are done")
print("checkpoints:", sorted(path.name for path in (OUT / "checkpoints").iterdir()))

# %% [markdown]
# ## Resume
#
# With `resume=True` the run continues from its newest checkpoint. The checkpoint has the params,
# their moving average, the optimizer's state, the key and the position in the stream of images.
# Update k draws from `fold_in(key, k)`, so the result has the same bits as without the stop.

# %%
outcome = train(plan, resume=True)
print(f"{outcome.step} of {STEPS} updates are done")

# %% [markdown]
# ## The samples become sharper
#
# Every grid in `samples/` starts from the same noise, so the images can be compared. First there is
# noise, then strokes, then digits.

# %%
stages = [k * EVERY for k in ((1, 2, 3, 4) if CHECKING else (1, 2, 4, 8, 12))]
figure, axes = plt.subplots(1, len(stages), figsize=(2.6 * len(stages), 2.9))
for axis, step in zip(axes, stages, strict=True):
    axis.imshow(Image.open(OUT / "samples" / f"{step:06d}.png"), "gray")
    axis.set(title=f"{step} updates", xticks=[], yticks=[], frame_on=False)
figure.tight_layout()
plt.show()

# %% [markdown]
# The loss is the squared error of the predicted noise. It falls fast at first and then very slowly,
# while the samples still become better: most of the remaining loss is noise that cannot be
# predicted. The run itself draws this curve.

# %%
Image.open(OUT / "curve.png")

# %% [markdown]
# ## The result
#
# The folder is a model like any other. Its weights are the moving average. The raw weights are in
# the same folder.

# %%
for path in sorted(OUT.rglob("*")):
    if path.is_file() and path.relative_to(OUT).parts[0] not in ("checkpoints", "tensorboard"):
        print(f"{path.stat().st_size / 1000:8,.1f} kB  {path.relative_to(OUT)}")

# %%
pipe = dj.DDPMPipeline.from_pretrained(OUT)
images = pipe(
    jax.random.key(1), batch_size=40, num_inference_steps=20 if CHECKING else 100, progress=False
).images
dj.make_grid(images, columns=10)

# %% [markdown]
# ## Export
#
# The folder already has the layout of diffusers. To share it, half precision is enough and needs
# half the space. In a shell: `ddpm-jax convert digits-run half --to diffusers --dtype float16`

# %%
weights_convert.convert(OUT, Path("half"), to="diffusers", dtype="float16", overwrite=True)
half = dj.DDPMPipeline.from_pretrained("half")

x = jax.random.normal(jax.random.key(2), (4, 8, 8, 1))
whole, rounded = (p.unet.apply({"params": p.params}, x, 500) for p in (pipe, half))
print(f"the outputs differ by at most {jnp.max(jnp.abs(whole - rounded)):.0e}")

# %% [markdown]
# PyTorch diffusers, if it is installed, loads the folder and samples from it:

# %%
try:
    import torch
    from diffusers import DDPMPipeline
    from diffusers.utils import logging
except ImportError as error:
    print(f"{error.name} is missing: pip install torch diffusers, then run this cell again")
else:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    theirs = DDPMPipeline.from_pretrained(OUT)
    theirs.set_progress_bar_config(disable=True)
    steps, generator = 20 if CHECKING else 100, torch.manual_seed(0)
    display(dj.make_grid(theirs(20, generator, num_inference_steps=steps).images, columns=10))
    with torch.no_grad():
        answer = theirs.unet(torch.tensor(np.asarray(x)).permute(0, 3, 1, 2), 500).sample
    apart = np.abs(answer.permute(0, 2, 3, 1).numpy() - np.asarray(whole)).max()
    print(f"the networks' outputs differ by at most {apart:.0e}")

# %% [markdown]
# ## On your own
#
# - The same run in a shell is `ddpm-jax train --config digits-run/settings.json --out again`, and
#   `ddpm-jax train --help` lists every setting.
# - `docs/training.md` describes what a run does when it is stopped, how to fine-tune a trained
#   model, how to use several devices, and how to write your own loop from the pure functions below
#   `train`.
# - The bundled digits, `dj.DDPMPipeline.from_pretrained("digits")`, are the result of twenty
#   minutes.
