"""Errors for packages that only an extra installs."""

from importlib.util import find_spec


def missing(package: str, purpose: str, extra: str = "train") -> ImportError:
    """The error to raise where an optional package is not installed."""
    return ImportError(f"{purpose} needs {package}: pip install 'ddpm-jax[{extra}]'", name=package)


def check_installed(packages: tuple[str, ...], purpose: str, extra: str = "train") -> None:
    """Looks for packages before long work. ImportError that names all that are not installed."""
    if lacking := [package for package in packages if find_spec(package) is None]:
        raise missing(", ".join(lacking), purpose, extra)
