"""Counts in a sentence."""


def counted(count: int, thing: str) -> str:
    """A number and what it is of: 1 image, 2 images, 1,797 pictures, 3 classes."""
    ending = "" if count == 1 else "es" if thing.endswith("s") else "s"
    return f"{count:,} {thing}{ending}"
