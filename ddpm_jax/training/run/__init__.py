"""A whole training run: what the functions of `ddpm_jax.training` make together."""
