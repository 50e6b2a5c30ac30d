"""The command line, `ddpm-jax`: one file a command."""

from ddpm_jax.cli.app import main as main

__all__ = ["main"]
