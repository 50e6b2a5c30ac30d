"""DPT: the depth estimator of Stable Diffusion 2."""
