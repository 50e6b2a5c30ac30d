"""Training: a pure loss, a compiled step, and a state that is a plain pytree.

The functions stand alone; `ddpm-jax train` is what they make together. Input is in
`ddpm_jax.training.data`.
"""

from ddpm_jax.training.ema import Ema as Ema
from ddpm_jax.training.objective import Drawn as Drawn
from ddpm_jax.training.objective import Loss as Loss
from ddpm_jax.training.objective import Objective as Objective
from ddpm_jax.training.objective import make_loss as make_loss
from ddpm_jax.training.optimizer import Optimizer as Optimizer
from ddpm_jax.training.state import TrainState as TrainState
from ddpm_jax.training.state import init_state as init_state
from ddpm_jax.training.step import make_train_step as make_train_step
from ddpm_jax.training.step import make_train_steps as make_train_steps
from ddpm_jax.training.step import make_update as make_update
from ddpm_jax.training.weights import loss_weights as loss_weights

__all__ = [
    # what is trained for
    "Objective", "Loss", "Drawn", "make_loss", "loss_weights",
    # how
    "Optimizer", "Ema", "TrainState", "init_state",
    "make_update", "make_train_step", "make_train_steps",
]  # fmt: skip
