"""Guidance: transforms of `denoise`, one paper a file."""
