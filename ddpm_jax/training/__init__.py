"""Training: a pure loss, a compiled step, and a state that is a plain pytree.

The functions stand alone; `run/` and `ddpm-jax train` put them together. Input is in
`ddpm_jax.training.data`.
"""

from ddpm_jax.training.ema import Ema as Ema
from ddpm_jax.training.objective import Drawn as Drawn
from ddpm_jax.training.objective import Loss as Loss
from ddpm_jax.training.objective import Objective as Objective
from ddpm_jax.training.objective import Predict as Predict
from ddpm_jax.training.optimizer import Optimizer as Optimizer
from ddpm_jax.training.processes import start_processes as start_processes
from ddpm_jax.training.run.guards import TrainingError as TrainingError
from ddpm_jax.training.run.plan import Plan as Plan
from ddpm_jax.training.run.plan import make_plan as make_plan
from ddpm_jax.training.run.presets import PRESETS as PRESETS
from ddpm_jax.training.run.run import Outcome as Outcome
from ddpm_jax.training.run.run import train as train
from ddpm_jax.training.run.settings import Settings as Settings
from ddpm_jax.training.sharding import batch_sharding as batch_sharding
from ddpm_jax.training.sharding import check_batch_size as check_batch_size
from ddpm_jax.training.sharding import fetch as fetch
from ddpm_jax.training.sharding import gather_params as gather_params
from ddpm_jax.training.sharding import init_sharded as init_sharded
from ddpm_jax.training.sharding import leaf_sharding as leaf_sharding
from ddpm_jax.training.sharding import make_mesh as make_mesh
from ddpm_jax.training.sharding import place_batch as place_batch
from ddpm_jax.training.sharding import state_shardings as state_shardings
from ddpm_jax.training.state import TrainState as TrainState
from ddpm_jax.training.state import init_state as init_state
from ddpm_jax.training.step import make_train_step as make_train_step
from ddpm_jax.training.step import make_train_steps as make_train_steps
from ddpm_jax.training.step import make_update as make_update
from ddpm_jax.training.unet_loss import make_loss as make_loss
from ddpm_jax.training.weighting import loss_weights as loss_weights

__all__ = [
    # objectives
    "Objective", "Loss", "Predict", "Drawn", "make_loss", "loss_weights",
    # updates
    "Optimizer", "Ema", "TrainState", "init_state",
    "make_update", "make_train_step", "make_train_steps",
    # devices
    "start_processes", "make_mesh", "leaf_sharding", "state_shardings", "init_sharded",
    "gather_params", "batch_sharding", "place_batch", "check_batch_size", "fetch",
    # a whole run
    "Settings", "PRESETS", "Plan", "make_plan", "train", "Outcome", "TrainingError",
]  # fmt: skip
