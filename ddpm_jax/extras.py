"""Errors for packages that only an extra installs."""

from importlib.util import find_spec


def check_installed(packages: tuple[str, ...], purpose: str, extra: str = "train") -> None:
    """Looks for packages before long work. ImportError that names all that are not installed."""
    if lacking := ", ".join(package for package in packages if find_spec(package) is None):
        message = f"{purpose} needs {lacking}: pip install 'ddpm-jax[{extra}]'"
        raise ImportError(message, name=lacking)
