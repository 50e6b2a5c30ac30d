"""Evaluation: measures of how good a model and its images are."""

from ddpm_jax.evaluation.bound import VariationalBound as VariationalBound
from ddpm_jax.evaluation.bound import variational_bound as variational_bound
from ddpm_jax.evaluation.distortion import RateDistortion as RateDistortion
from ddpm_jax.evaluation.distortion import progressive_decoding as progressive_decoding
from ddpm_jax.evaluation.distortion import progressive_generation as progressive_generation
from ddpm_jax.evaluation.distortion import rate_distortion as rate_distortion
from ddpm_jax.evaluation.features import Collected as Collected
from ddpm_jax.evaluation.features import FeatureNetwork as FeatureNetwork
from ddpm_jax.evaluation.features import collect_features as collect_features
from ddpm_jax.evaluation.flow import FlowLikelihood as FlowLikelihood
from ddpm_jax.evaluation.flow import flow_log_likelihood as flow_log_likelihood
from ddpm_jax.evaluation.metrics.fid import frechet_distance as frechet_distance
from ddpm_jax.evaluation.metrics.inception_score import inception_score as inception_score
from ddpm_jax.evaluation.metrics.kid import kernel_distance as kernel_distance
from ddpm_jax.evaluation.metrics.precision_recall import precision_recall as precision_recall
from ddpm_jax.evaluation.networks import digits_features as digits_features
from ddpm_jax.evaluation.networks import inception_features as inception_features
from ddpm_jax.evaluation.statistics import Statistics as Statistics
