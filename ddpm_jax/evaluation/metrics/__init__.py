"""Metrics of generated images and of models: one file a metric, and the one list of them.

A new metric is a file with a `Metric`, and a line in `METRICS`.
"""

from ddpm_jax.evaluation.metrics.fid import FrechetDistance
from ddpm_jax.evaluation.metrics.inception_score import InceptionScore
from ddpm_jax.evaluation.metrics.kid import KernelDistance
from ddpm_jax.evaluation.metrics.likelihood import Likelihood
from ddpm_jax.evaluation.metrics.metric import Evidence, Metric, ModelEvidence
from ddpm_jax.evaluation.metrics.precision_recall import PrecisionRecall

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (FrechetDistance, KernelDistance, InceptionScore, PrecisionRecall, Likelihood)
}
"""All metrics, by name."""

__all__ = ["METRICS", "Evidence", "Likelihood", "Metric", "ModelEvidence"]
