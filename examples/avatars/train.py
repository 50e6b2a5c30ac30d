"""Trains the text encoder and the UNet together, on the latents of the pictures.

The loss is the library's, by a `predict` that encodes the captions too. A tenth of the captions is
replaced by the empty one, which is what guidance moves away from.

    python -m examples.avatars.train avatars.npz run                 # after train_vae
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jaxtyping import Array

from ddpm_jax.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from ddpm_jax.schedulers import DDIMScheduler, DDPMScheduler
from ddpm_jax.text.tokenizer import CLIPTokenizer
from ddpm_jax.training import (
    Ema,
    Loss,
    Objective,
    Optimizer,
    TrainState,
    init_state,
    make_train_step,
    make_update,
)
from ddpm_jax.training.step import Update
from examples.avatars import tokens
from examples.avatars.captions import caption
from examples.avatars.loop import run, shuffled
from examples.avatars.people import TRAITS, Person, draw_person, from_numbers

TEXT: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": tokens.LENGTH,
}
UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (64, 104),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    "cross_attention_dim": TEXT["hidden_size"],
}
SCHEDULER = DDIMScheduler(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    prediction_type="v_prediction",
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
)
DROPPED = 0.1
BATCH = 32


class Networks(NamedTuple):
    """What is trained; params are {"text_encoder": ..., "unet": ...}."""

    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel

    def init_params(self, key: Array) -> dict[str, Any]:
        """New params of both."""
        keys = jax.random.split(key)
        named = zip(self._fields, self, keys, strict=True)
        return {name: network.init_params(one) for name, network, one in named}

    def predict(
        self, params: Any, x: Any, timestep: Any, batch: Any, rngs: Any, train: bool
    ) -> Array:
        """The output for noisy latents, given the tokens of captions."""
        context = self.text_encoder.apply({"params": params["text_encoder"]}, batch["ids"])
        output = self.unet.apply({"params": params["unet"]}, x, timestep, context, train, rngs=rngs)
        return cast(Array, output)


class Pictures:
    """Batches of latents and captions, each made from the seed and the update's number alone.

    Args:
        people: of the pictures.
        mean: of their latents.
        std: of their latents.
        scale: the autoencoder's.
        tokenizer: of the captions.
        size: of a batch.
    """

    def __init__(
        self,
        people: Sequence[Person],
        mean: np.ndarray,
        std: np.ndarray,
        scale: float,
        tokenizer: CLIPTokenizer,
        size: int = BATCH,
    ):
        self.people, self.tokenizer, self.size = people, tokenizer, size
        self.mean, self.std = mean * scale, std * scale

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """That of update `step`: "image", the latents, and "ids"."""
        rng = np.random.default_rng((1, step))
        chosen = shuffled(len(self.people), self.size, 0, step)
        noise = rng.standard_normal(self.mean[chosen].shape, np.float32)
        texts = [
            "" if rng.random() < DROPPED else caption(self.people[place], rng) for place in chosen
        ]
        return {
            "image": self.mean[chosen] + self.std[chosen] * noise,
            "ids": self.tokenizer(texts),
        }


def main(args: Sequence[str] | None = None) -> None:
    """Trains, or goes on with training, in the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Trains the text-to-image model of the avatars.")
    parser.add_argument("data", type=Path, help="what draw.py wrote")
    parser.add_argument("run", type=Path, help="the folder of train_vae.py")
    parser.add_argument("--steps", type=int, default=4500, help="updates (default 4500)")
    given = parser.parse_args(args)
    vae = AutoencoderKL.read_model(given.run / "vae")
    tokenizer = learned_tokenizer(given.run / "tokenizer")
    latents = np.load(given.run / "latents.npz")
    people = read_people(np.load(given.data))
    pictures = Pictures(people, latents["mean"], latents["std"], vae.scaling_factor, tokenizer)
    networks = make_networks(tokenizer.vocab_size)
    update, first = begin(networks, given.steps)
    state = run(given.run / "run", first(), update, pictures.batch, given.steps)
    save(networks, state.ema, given.run)


def begin(networks: Networks, steps: int) -> tuple[Update, Callable[[], TrainState]]:
    """The update of a run of `steps` updates, and what makes its first state."""
    adam = Optimizer(learning_rate=1e-3, warmup_steps=300, decay="cosine").make(steps)
    loss = Loss(networks.predict, DDPMScheduler.from_config(SCHEDULER.config), Objective())
    update = make_train_step(make_update(loss, adam, Ema(decay=0.998, power=0.75)))
    params = networks.init_params(jax.random.key(0))
    return update, lambda: init_state(params, adam, jax.random.key(1))


def make_networks(
    vocabulary: int, text: Mapping[str, Any] = TEXT, unet: Mapping[str, Any] = UNET
) -> Networks:
    """Both, for a tokenizer of some size, whose last two tokens are the special ones."""
    special = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1}
    encoder = CLIPTextModel(vocab_size=vocabulary, pad_token_id=vocabulary - 1, **special, **text)
    return Networks(encoder, UNet2DConditionModel(**unet))


def learned_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer in a folder, learned from captions of people at random if it is not there."""
    if not folder.exists():
        rng = np.random.default_rng(2)
        captions = (caption(draw_person(rng), rng) for _ in range(20_000))
        tokens.learn(captions).save_pretrained(folder)
    return CLIPTokenizer.read(folder)


def read_people(data: Mapping[str, np.ndarray]) -> list[Person]:
    """Those of a file of draw.py."""
    columns = [data[trait].tolist() for trait in TRAITS]
    return [from_numbers(dict(zip(TRAITS, row, strict=True))) for row in zip(*columns, strict=True)]


def save(networks: Networks, params: Any, folder: Path) -> None:
    """Writes what a StableDiffusionPipeline has besides the autoencoder and the tokenizer."""
    host = jax.tree.map(np.asarray, params)
    for name, network in networks._asdict().items():
        network.save_pretrained(folder / name, host[name])
    SCHEDULER.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main()
