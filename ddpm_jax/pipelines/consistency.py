"""The pipeline of consistency models: one evaluation from noise to an image.

Reference: Song et al. 2023, arXiv:2303.01469.
"""

from typing import Unpack

from jax.typing import ArrayLike

from ddpm_jax.pipelines.unconditional import CallOptions, Output, UnconditionalPipeline


class ConsistencyModelPipeline(UnconditionalPipeline):
    """Sampling of consistency models, in one step by default. The scheduler is not converted.

    >>> import jax, ddpm_jax as dj
    >>> unet = dj.UNet2DModel(
    ...     sample_size=8,
    ...     block_out_channels=(8, 8),
    ...     down_block_types=("DownBlock2D",) * 2,
    ...     up_block_types=("UpBlock2D",) * 2,
    ...     norm_num_groups=4,
    ... )
    >>> pipe = dj.ConsistencyModelPipeline(
    ...     unet=unet,
    ...     params=unet.init_params(jax.random.key(0)),
    ...     scheduler=dj.CMStochasticIterativeScheduler(),
    ... )
    >>> pipe(jax.random.key(0), output_type="np", progress=False).images.shape
    (1, 8, 8, 3)

    Reference: Song et al. 2023, arXiv:2303.01469.
    """

    def __call__(
        self, key: ArrayLike, *, num_inference_steps: int = 1, **options: Unpack[CallOptions]
    ) -> Output:
        """Generates images. Arguments, results and errors as in `DDPMPipeline`."""
        return self._call(key, {"num_inference_steps": num_inference_steps}, **options)
