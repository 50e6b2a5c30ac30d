"""Schedulers: one paper a file, each a frozen config that writes a `ddpm_jax.Table`."""

from typing import TYPE_CHECKING, Literal, TypeAlias

from ddpm_jax.schedulers.base import GridOptions as GridOptions
from ddpm_jax.schedulers.base import Scheduler as Scheduler
from ddpm_jax.schedulers.betas import SpacedTimesteps as SpacedTimesteps
from ddpm_jax.schedulers.cm_stochastic_iterative import (
    CMStochasticIterativeScheduler as CMStochasticIterativeScheduler,
)
from ddpm_jax.schedulers.ddim import DDIMScheduler as DDIMScheduler
from ddpm_jax.schedulers.ddim_inverse import DDIMInverseScheduler as DDIMInverseScheduler
from ddpm_jax.schedulers.ddpm import DDPMScheduler as DDPMScheduler
from ddpm_jax.schedulers.deis_multistep import DEISMultistepScheduler as DEISMultistepScheduler
from ddpm_jax.schedulers.dpmsolver_multistep import (
    DPMSolverMultistepScheduler as DPMSolverMultistepScheduler,
)
from ddpm_jax.schedulers.dpmsolver_multistep_inverse import (
    DPMSolverMultistepInverseScheduler as DPMSolverMultistepInverseScheduler,
)
from ddpm_jax.schedulers.dpmsolver_sde import DPMSolverSDEScheduler as DPMSolverSDEScheduler
from ddpm_jax.schedulers.dpmsolver_singlestep import (
    DPMSolverSinglestepScheduler as DPMSolverSinglestepScheduler,
)
from ddpm_jax.schedulers.edm_dpmsolver_multistep import (
    EDMDPMSolverMultistepScheduler as EDMDPMSolverMultistepScheduler,
)
from ddpm_jax.schedulers.edm_euler import EDMEulerScheduler as EDMEulerScheduler
from ddpm_jax.schedulers.euler import EulerDiscreteScheduler as EulerDiscreteScheduler
from ddpm_jax.schedulers.euler_ancestral import (
    EulerAncestralDiscreteScheduler as EulerAncestralDiscreteScheduler,
)
from ddpm_jax.schedulers.flow_match_euler import (
    FlowMatchEulerDiscreteScheduler as FlowMatchEulerDiscreteScheduler,
)
from ddpm_jax.schedulers.flow_match_heun import (
    FlowMatchHeunDiscreteScheduler as FlowMatchHeunDiscreteScheduler,
)
from ddpm_jax.schedulers.heun import HeunDiscreteScheduler as HeunDiscreteScheduler
from ddpm_jax.schedulers.ipndm import IPNDMScheduler as IPNDMScheduler
from ddpm_jax.schedulers.karras_ve import KarrasVeScheduler as KarrasVeScheduler
from ddpm_jax.schedulers.kdpm2 import KDPM2DiscreteScheduler as KDPM2DiscreteScheduler
from ddpm_jax.schedulers.kdpm2_ancestral import (
    KDPM2AncestralDiscreteScheduler as KDPM2AncestralDiscreteScheduler,
)
from ddpm_jax.schedulers.lcm import LCMScheduler as LCMScheduler
from ddpm_jax.schedulers.lms import LMSDiscreteScheduler as LMSDiscreteScheduler
from ddpm_jax.schedulers.pndm import PNDMScheduler as PNDMScheduler
from ddpm_jax.schedulers.repaint import RePaintScheduler as RePaintScheduler
from ddpm_jax.schedulers.sasolver import SASolverScheduler as SASolverScheduler
from ddpm_jax.schedulers.score_sde_ve import ScoreSdeVeScheduler as ScoreSdeVeScheduler
from ddpm_jax.schedulers.tcd import TCDScheduler as TCDScheduler
from ddpm_jax.schedulers.unipc_multistep import UniPCMultistepScheduler as UniPCMultistepScheduler

SCHEDULERS: tuple[type[Scheduler], ...] = (
    DDPMScheduler,
    DDIMScheduler,
    PNDMScheduler,
    EulerDiscreteScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EDMDPMSolverMultistepScheduler,
    CMStochasticIterativeScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    ScoreSdeVeScheduler,
    KarrasVeScheduler,
    DPMSolverSinglestepScheduler,
    RePaintScheduler,
    LCMScheduler,
    TCDScheduler,
    KDPM2DiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    DPMSolverSDEScheduler,
    UniPCMultistepScheduler,
    DEISMultistepScheduler,
    SASolverScheduler,
    IPNDMScheduler,
    DDIMInverseScheduler,
    DPMSolverMultistepInverseScheduler,
)
"""Every scheduler; a new one is added here and is then tested and offered everywhere."""

BY_NAME: dict[str, type[Scheduler]] = {
    cls.short_name(): cls for cls in SCHEDULERS if not cls.ascends
}
"""Those that make images, by the names that the command line and the benchmarks take."""

if TYPE_CHECKING:
    SchedulerName: TypeAlias = str
else:
    SchedulerName = Literal[tuple(BY_NAME)]  # the choices follow from the list
