"""Inception-v3 in the variant that FID is defined with, and where its weights come from."""

from ddpm_jax.evaluation.inception.model import InceptionV3 as InceptionV3
from ddpm_jax.evaluation.inception.weights import read_weights as read_weights
from ddpm_jax.evaluation.inception.weights import weights_file as weights_file
