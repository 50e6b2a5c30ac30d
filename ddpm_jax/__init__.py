"""Denoising diffusion in JAX: PyTorch diffusers' checkpoints, tables, and one compiled scan.

>>> import jax, ddpm_jax as dj
>>> pipe = dj.DDIMPipeline.from_pretrained("digits")
>>> pipe(jax.random.key(0), batch_size=2, progress=False).images[0].size
(8, 8)
"""

from ddpm_jax._version import __version__ as __version__
from ddpm_jax.builder import Level as Level
from ddpm_jax.builder import TableBuilder as TableBuilder
from ddpm_jax.builder import describe as describe
from ddpm_jax.refine import Clip as Clip
from ddpm_jax.refine import DynamicThreshold as DynamicThreshold
from ddpm_jax.sampling import advance as advance
from ddpm_jax.sampling import noise as noise
from ddpm_jax.sampling import noised as noised
from ddpm_jax.sampling import predict_x0 as predict_x0
from ddpm_jax.sampling import prior as prior
from ddpm_jax.sampling import sample as sample
from ddpm_jax.sampling import sample_keys as sample_keys
from ddpm_jax.sampling import sample_with_history as sample_with_history
from ddpm_jax.sampling import step as step
from ddpm_jax.schedulers import DDIMScheduler as DDIMScheduler
from ddpm_jax.schedulers import DDPMScheduler as DDPMScheduler
from ddpm_jax.schedulers import EulerAncestralDiscreteScheduler as EulerAncestralDiscreteScheduler
from ddpm_jax.schedulers import EulerDiscreteScheduler as EulerDiscreteScheduler
from ddpm_jax.schedulers import PNDMScheduler as PNDMScheduler
from ddpm_jax.schedules import NoiseSchedule as NoiseSchedule
from ddpm_jax.schedules import noise_schedule as noise_schedule
from ddpm_jax.table import Row as Row
from ddpm_jax.table import Table as Table
from ddpm_jax.table import pad as pad
from ddpm_jax.table import stack as stack
