"""Tables that are learned: a sampler's numbers, fitted to what a longer run gives."""

from ddpm_jax.learning.bundled import learned_table as learned_table
from ddpm_jax.learning.learn import learn_table as learn_table
