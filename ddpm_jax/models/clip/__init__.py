"""CLIP: the text encoder of Stable Diffusion."""
