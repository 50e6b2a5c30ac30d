"""Denoising diffusion in JAX: diffusers' checkpoints, samplers as tables, and one compiled scan.

>>> import jax, ddpm_jax as dj
>>> pipe = dj.DDIMPipeline.from_pretrained("digits")
>>> pipe(jax.random.key(0), batch_size=2, progress=False).images[0].size
(8, 8)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddpm_jax._version import __version__ as __version__
from ddpm_jax.export import ExportedSampler as ExportedSampler
from ddpm_jax.export import export_sampler as export_sampler
from ddpm_jax.export import load_sampler as load_sampler
from ddpm_jax.guidance.classifier import classifier_guide as classifier_guide
from ddpm_jax.guidance.classifier_free import guidance_interval as guidance_interval
from ddpm_jax.guidance.classifier_free import guided as guided
from ddpm_jax.guidance.diffpir import diffpir as diffpir
from ddpm_jax.guidance.dps import dps as dps
from ddpm_jax.guidance.foreign import from_denoiser as from_denoiser
from ddpm_jax.guidance.foreign import from_preconditioned as from_preconditioned
from ddpm_jax.guidance.foreign import from_velocity as from_velocity
from ddpm_jax.guidance.guide import Guide as Guide
from ddpm_jax.guidance.measurements import Blurred as Blurred
from ddpm_jax.guidance.measurements import Downsampled as Downsampled
from ddpm_jax.guidance.measurements import Masked as Masked
from ddpm_jax.guidance.pigdm import pigdm as pigdm
from ddpm_jax.hub.config import Config as Config
from ddpm_jax.hub.hub import HubOptions as HubOptions
from ddpm_jax.images import make_grid as make_grid
from ddpm_jax.images import save_gif as save_gif
from ddpm_jax.images import to_pil as to_pil
from ddpm_jax.images import to_uint8 as to_uint8
from ddpm_jax.learning import learn_table as learn_table
from ddpm_jax.learning import learned_table as learned_table
from ddpm_jax.models import AutoencoderKL as AutoencoderKL
from ddpm_jax.models import CLIPTextModel as CLIPTextModel
from ddpm_jax.models import DPTForDepthEstimation as DPTForDepthEstimation
from ddpm_jax.models import Model as Model
from ddpm_jax.models import Posterior as Posterior
from ddpm_jax.models import StableDiffusionSafetyChecker as StableDiffusionSafetyChecker
from ddpm_jax.models import UNet2DConditionModel as UNet2DConditionModel
from ddpm_jax.models import UNet2DModel as UNet2DModel
from ddpm_jax.models import decode_tiled as decode_tiled
from ddpm_jax.models import encode_tiled as encode_tiled
from ddpm_jax.pipelines.base import DiffusionPipeline as DiffusionPipeline
from ddpm_jax.pipelines.base import LoadOptions as LoadOptions
from ddpm_jax.pipelines.call import RunOptions as RunOptions
from ddpm_jax.pipelines.consistency import ConsistencyModelPipeline as ConsistencyModelPipeline
from ddpm_jax.pipelines.depth_to_image import (
    StableDiffusionDepth2ImgPipeline as StableDiffusionDepth2ImgPipeline,
)
from ddpm_jax.pipelines.image_to_image import (
    StableDiffusionImg2ImgPipeline as StableDiffusionImg2ImgPipeline,
)
from ddpm_jax.pipelines.inpaint import (
    StableDiffusionInpaintPipeline as StableDiffusionInpaintPipeline,
)
from ddpm_jax.pipelines.repaint import RePaintPipeline as RePaintPipeline
from ddpm_jax.pipelines.stable_diffusion import PromptOptions as PromptOptions
from ddpm_jax.pipelines.stable_diffusion import (
    StableDiffusionPipelineOutput as StableDiffusionPipelineOutput,
)
from ddpm_jax.pipelines.text_to_image import StableDiffusionPipeline as StableDiffusionPipeline
from ddpm_jax.pipelines.unconditional import CallOptions as CallOptions
from ddpm_jax.pipelines.unconditional import DDIMPipeline as DDIMPipeline
from ddpm_jax.pipelines.unconditional import DDPMPipeline as DDPMPipeline
from ddpm_jax.pipelines.unconditional import FileSettings as FileSettings
from ddpm_jax.pipelines.unconditional import ImagePipelineOutput as ImagePipelineOutput
from ddpm_jax.pipelines.unconditional import PNDMPipeline as PNDMPipeline
from ddpm_jax.pipelines.unconditional import ScoreSdeVePipeline as ScoreSdeVePipeline
from ddpm_jax.sampling.keys import noise as noise
from ddpm_jax.sampling.keys import noised as noised
from ddpm_jax.sampling.keys import prior as prior
from ddpm_jax.sampling.keys import sample_keys as sample_keys
from ddpm_jax.sampling.loops import advance as advance
from ddpm_jax.sampling.loops import sample as sample
from ddpm_jax.sampling.loops import sample_with_history as sample_with_history
from ddpm_jax.sampling.slerp import slerp as slerp
from ddpm_jax.sampling.step import predict_x0 as predict_x0
from ddpm_jax.sampling.step import step as step
from ddpm_jax.sampling.torch_noise import torch_noise as torch_noise
from ddpm_jax.schedulers import CMStochasticIterativeScheduler as CMStochasticIterativeScheduler
from ddpm_jax.schedulers import DDIMInverseScheduler as DDIMInverseScheduler
from ddpm_jax.schedulers import DDIMScheduler as DDIMScheduler
from ddpm_jax.schedulers import DDPMScheduler as DDPMScheduler
from ddpm_jax.schedulers import DEISMultistepScheduler as DEISMultistepScheduler
from ddpm_jax.schedulers import (
    DPMSolverMultistepInverseScheduler as DPMSolverMultistepInverseScheduler,
)
from ddpm_jax.schedulers import DPMSolverMultistepScheduler as DPMSolverMultistepScheduler
from ddpm_jax.schedulers import DPMSolverSDEScheduler as DPMSolverSDEScheduler
from ddpm_jax.schedulers import DPMSolverSinglestepScheduler as DPMSolverSinglestepScheduler
from ddpm_jax.schedulers import EDMDPMSolverMultistepScheduler as EDMDPMSolverMultistepScheduler
from ddpm_jax.schedulers import EDMEulerScheduler as EDMEulerScheduler
from ddpm_jax.schedulers import EulerAncestralDiscreteScheduler as EulerAncestralDiscreteScheduler
from ddpm_jax.schedulers import EulerDiscreteScheduler as EulerDiscreteScheduler
from ddpm_jax.schedulers import FlowMatchEulerDiscreteScheduler as FlowMatchEulerDiscreteScheduler
from ddpm_jax.schedulers import FlowMatchHeunDiscreteScheduler as FlowMatchHeunDiscreteScheduler
from ddpm_jax.schedulers import GridOptions as GridOptions
from ddpm_jax.schedulers import HeunDiscreteScheduler as HeunDiscreteScheduler
from ddpm_jax.schedulers import IPNDMScheduler as IPNDMScheduler
from ddpm_jax.schedulers import KarrasVeScheduler as KarrasVeScheduler
from ddpm_jax.schedulers import KDPM2AncestralDiscreteScheduler as KDPM2AncestralDiscreteScheduler
from ddpm_jax.schedulers import KDPM2DiscreteScheduler as KDPM2DiscreteScheduler
from ddpm_jax.schedulers import LCMScheduler as LCMScheduler
from ddpm_jax.schedulers import LMSDiscreteScheduler as LMSDiscreteScheduler
from ddpm_jax.schedulers import PNDMScheduler as PNDMScheduler
from ddpm_jax.schedulers import RePaintScheduler as RePaintScheduler
from ddpm_jax.schedulers import SASolverScheduler as SASolverScheduler
from ddpm_jax.schedulers import Scheduler as Scheduler
from ddpm_jax.schedulers import ScoreSdeVeScheduler as ScoreSdeVeScheduler
from ddpm_jax.schedulers import TCDScheduler as TCDScheduler
from ddpm_jax.schedulers import UniPCMultistepScheduler as UniPCMultistepScheduler
from ddpm_jax.tables.builder import Level as Level
from ddpm_jax.tables.builder import TableBuilder as TableBuilder
from ddpm_jax.tables.describe import describe as describe
from ddpm_jax.tables.files import load_table as load_table
from ddpm_jax.tables.files import save_table as save_table
from ddpm_jax.tables.inverted import inverted as inverted
from ddpm_jax.tables.refine import Clip as Clip
from ddpm_jax.tables.refine import DynamicThreshold as DynamicThreshold
from ddpm_jax.tables.schedules import NoiseSchedule as NoiseSchedule
from ddpm_jax.tables.schedules import noise_schedule as noise_schedule
from ddpm_jax.tables.table import Row as Row
from ddpm_jax.tables.table import Table as Table
from ddpm_jax.tables.table import pad as pad
from ddpm_jax.tables.table import stack as stack
from ddpm_jax.text.tokenizer import CLIPTokenizer as CLIPTokenizer

if TYPE_CHECKING:  # imported at the first use: a quarter of the whole import, which few need
    from ddpm_jax.evaluation import Collected as Collected
    from ddpm_jax.evaluation import FeatureNetwork as FeatureNetwork
    from ddpm_jax.evaluation import FlowLikelihood as FlowLikelihood
    from ddpm_jax.evaluation import RateDistortion as RateDistortion
    from ddpm_jax.evaluation import Statistics as Statistics
    from ddpm_jax.evaluation import VariationalBound as VariationalBound
    from ddpm_jax.evaluation import collect_features as collect_features
    from ddpm_jax.evaluation import digits_features as digits_features
    from ddpm_jax.evaluation import flow_log_likelihood as flow_log_likelihood
    from ddpm_jax.evaluation import frechet_distance as frechet_distance
    from ddpm_jax.evaluation import inception_features as inception_features
    from ddpm_jax.evaluation import inception_score as inception_score
    from ddpm_jax.evaluation import kernel_distance as kernel_distance
    from ddpm_jax.evaluation import precision_recall as precision_recall
    from ddpm_jax.evaluation import progressive_decoding as progressive_decoding
    from ddpm_jax.evaluation import progressive_generation as progressive_generation
    from ddpm_jax.evaluation import rate_distortion as rate_distortion
    from ddpm_jax.evaluation import variational_bound as variational_bound

__all__ = [
    # pipelines
    "DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "RePaintPipeline", "ScoreSdeVePipeline",
    "ConsistencyModelPipeline", "DiffusionPipeline",
    "ImagePipelineOutput", "CallOptions", "FileSettings", "RunOptions", "LoadOptions",
    # text to image
    "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline",
    "StableDiffusionDepth2ImgPipeline", "StableDiffusionPipelineOutput", "PromptOptions",
    # models
    "UNet2DModel", "UNet2DConditionModel", "AutoencoderKL", "Posterior", "decode_tiled",
    "encode_tiled", "CLIPTextModel", "CLIPTokenizer", "StableDiffusionSafetyChecker",
    "DPTForDepthEstimation", "Model", "HubOptions",
    # schedulers
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "CMStochasticIterativeScheduler", "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler", "ScoreSdeVeScheduler", "KarrasVeScheduler",
    "LCMScheduler", "TCDScheduler",
    "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler",
    "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler",
    "IPNDMScheduler", "DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler",
    "RePaintScheduler", "Scheduler", "GridOptions", "Config",
    # sampling
    "sample", "sample_with_history", "advance", "step", "predict_x0",
    "sample_keys", "prior", "noise", "noised", "torch_noise", "slerp", "guided",
    "guidance_interval",
    # guides
    "Guide", "classifier_guide", "pigdm", "diffpir", "dps", "Masked", "Downsampled", "Blurred",
    # networks of other parameterisations
    "from_denoiser", "from_preconditioned", "from_velocity",
    # tables
    "Table", "Row", "pad", "stack", "inverted", "describe", "TableBuilder", "Level", "Clip",
    "DynamicThreshold", "NoiseSchedule", "noise_schedule", "save_table", "load_table",
    "learn_table", "learned_table",
    # likelihood, rate and distortion
    "variational_bound", "VariationalBound", "flow_log_likelihood", "FlowLikelihood",
    "rate_distortion", "RateDistortion", "progressive_decoding", "progressive_generation",
    # runs without this library
    "export_sampler", "load_sampler", "ExportedSampler",
    # metrics of samples
    "frechet_distance", "kernel_distance", "inception_score", "precision_recall", "Statistics",
    "FeatureNetwork", "collect_features", "Collected", "inception_features", "digits_features",
    # images
    "make_grid", "save_gif", "to_pil", "to_uint8",
    "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The public names that are not imported yet: those of evaluation."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.evaluation"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
