"""A whole sampling run as a file that needs none of this code to run: jax.export's programs, and
the weights beside them (`ddpm_jax.export.file`).
"""

from ddpm_jax.export.load import ExportedSampler as ExportedSampler
from ddpm_jax.export.load import load_sampler as load_sampler
from ddpm_jax.export.write import export_sampler as export_sampler
