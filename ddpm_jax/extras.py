"""Errors for packages that only an extra installs."""


def missing(package: str, purpose: str, extra: str = "train") -> ImportError:
    """The error to raise where an optional package is not installed."""
    return ImportError(f"{purpose} needs {package}: pip install 'ddpm-jax[{extra}]'", name=package)
