"""Errors for packages that only training needs."""


def missing(package: str, purpose: str) -> ImportError:
    """The error to raise where an optional package is not installed."""
    return ImportError(f"{purpose} needs {package}: pip install 'ddpm-jax[train]'", name=package)
