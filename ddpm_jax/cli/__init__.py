"""The command line, `ddpm-jax`, with one file for each command."""

from ddpm_jax.cli.app import main as main

__all__ = ["main"]
