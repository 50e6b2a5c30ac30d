"""CLIP's text encoder, as transformers' `CLIPTextModel` has it, in Flax.

    x       = token_embedding(ids) + position_embedding(0, 1, ...)
    context = final_layer_norm(encoder(x, causal))

All positions are attended to, the padding too: so Stable Diffusion was trained.

Reference: Radford et al. 2021, arXiv:2103.00020.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Shaped

from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.models import checks
from ddpm_jax.models.clip.layers import ACTIVATIONS, Encoder
from ddpm_jax.models.from_transformers import TransformersModel
from ddpm_jax.models.layers.basic import make_layer_norm
from ddpm_jax.models.layers.config import LayerConfig
from ddpm_jax.models.layers.embeddings import Embedding
from weights_convert.files import TRANSFORMERS

PREFIX = "text_model."
"""Of all names of the weights; transformers 5.6 and later leave it out."""
OTHER_TOWER = ("logit_scale", "text_projection", "vision_model", "visual_projection")
"""Parts of a whole CLIP that a text encoder does not have."""


class TextTransformer(nn.Module):
    """All of the network: torch has it in a module of its own."""

    config: LayerConfig
    rows: tuple[int, int]
    """Of the tables of tokens and of positions."""
    width: int
    encoder: Encoder

    @nn.compact
    def __call__(self, ids: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        """From ids to features."""
        x = TextEmbeddings(self.config, self.rows, self.width, name="embeddings")(ids)
        causal = jnp.tril(jnp.ones((1, 1, ids.shape[1], ids.shape[1]), bool))
        x = self.encoder(x.astype(self.config.dtype), causal)
        return make_layer_norm(self.config.exact, "final_layer_norm", self.encoder.eps)(x)


class TextEmbeddings(nn.Module):
    """The sum of a token's and a position's row."""

    config: LayerConfig
    rows: tuple[int, int]
    width: int

    @nn.compact
    def __call__(self, ids: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        """Looks the rows up."""
        table = partial(Embedding, width=self.width, param_dtype=self.config.param_dtype)
        tokens = table(self.rows[0], name="token_embedding")(ids.reshape(-1))
        positions = table(self.rows[1], name="position_embedding")(jnp.arange(ids.shape[1]))
        return tokens.reshape(*ids.shape, self.width) + positions[None]


class CLIPTextModel(TransformersModel):
    """Token ids to their features: `model.apply({"params": params}, ids)`.

    The fields are those of transformers' config that the text encoder reads, and four that are kept
    for transformers; other keys of a config file are left out.

    Raises:
        ValueError: at construction; lists every fault of the config.
    """

    vocab_size: int = 49408
    """Number of tokens."""
    hidden_size: int = 512
    """Width of the features."""
    intermediate_size: int = 2048
    """Width inside a layer."""
    num_hidden_layers: int = 12
    """Number of layers."""
    num_attention_heads: int = 8
    """Heads of an attention; must divide the width."""
    max_position_embeddings: int = 77
    """Longest sequence."""
    hidden_act: str = "quick_gelu"
    """"quick_gelu" (OpenAI's CLIP, Stable Diffusion 1.x) or "gelu" (OpenCLIP, 2.x)."""
    layer_norm_eps: float = 1e-5
    """Added to the variance in every norm."""
    projection_dim: int = 512
    """Kept for transformers."""
    pad_token_id: int | None = 1
    """Kept for transformers; the tokenizer has ids of its own."""
    bos_token_id: int | None = 49406
    """Kept for transformers."""
    eos_token_id: int | None = 49407
    """Kept for transformers."""

    files = ComponentFiles(
        folder="text_encoder",
        config="config.json",
        classes=("CLIPTextModel",),
        weights=TRANSFORMERS,
        library="transformers",
    )
    model_type = "clip_text_model"

    @classmethod
    def _param_name(cls, name: str) -> str | None:
        if name.startswith(OTHER_TOWER):
            return None
        return name if name.startswith(PREFIX) else PREFIX + name

    @classmethod
    def _faults(cls, fields: Mapping[str, Any]) -> Iterator[str]:
        counts = (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        )
        choices = {"hidden_act": tuple(ACTIVATIONS)}
        yield from checks.values(fields, choices=choices, counts=counts)
        yield from checks.transformer(fields)

    @nn.compact
    def __call__(
        self, ids: Shaped[Array | np.ndarray, "..."], clip_skip: int = 0
    ) -> Float[Array, "b n d"]:
        """The features of a text.

        Args:
            ids: (b, n) token ids, n at most `max_position_embeddings`. An id outside the vocabulary
                gives NaN.
            clip_skip: last layers that are left out, below `num_hidden_layers`.

        Returns:
            (b, n, hidden_size), float32.

        Raises:
            ValueError: at trace time, for wrong shapes or dtypes.
        """
        self._check_inputs(ids, clip_skip)
        layer = self._layer_config(activation=ACTIVATIONS[self.hidden_act])
        transformer = TextTransformer(
            layer,
            (self.vocab_size, self.max_position_embeddings),
            self.hidden_size,
            Encoder(
                layer,
                self.num_hidden_layers - clip_skip,
                self.num_attention_heads,
                self.intermediate_size,
                self.layer_norm_eps,
                parent=None,
            ),
            name="text_model",
        )
        return transformer(jnp.asarray(ids))

    @nn.nowrap
    def _check_inputs(self, ids: Any, clip_skip: int) -> None:
        shape, longest = jnp.shape(ids), self.max_position_embeddings
        if len(shape) != 2 or not 1 <= shape[1] <= longest:
            raise ValueError(
                f"ids must be (batch, tokens) with 1 to {longest} tokens, got shape {shape}"
            )
        if not jnp.issubdtype(jnp.result_type(ids), jnp.integer):
            raise ValueError(f"ids must be integers, got {jnp.result_type(ids)}")
        if not 0 <= clip_skip < self.num_hidden_layers:
            raise ValueError(
                f"clip_skip must lie in 0..{self.num_hidden_layers - 1}, got {clip_skip}"
            )

    @nn.nowrap
    def _example_inputs(self) -> tuple[Any, ...]:
        return (jnp.zeros((1, 1), jnp.int32),)
