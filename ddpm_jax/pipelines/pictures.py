"""Pictures, masks and depths that a user gives, as arrays of one size.

Pictures are PIL images, or float arrays in [0, 1], channels last. PIL images are scaled to the size
that is needed; arrays must have it.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from ddpm_jax.images import MODES

LANCZOS, BICUBIC = Image.Resampling.LANCZOS, -0.75


class Pictures(NamedTuple):
    """Given pictures.

    Attributes:
        values: (K, H, W, C) in [0, 1]; or latents, (K, h, w, c).
        latent: whether they are latents already.
    """

    values: Float[np.ndarray, "k h w c"]
    latent: bool

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.values.shape[1], self.values.shape[2]


def pictures(
    given: Any,
    *,
    channels: int,
    latent_channels: int | None,
    factor: int,
    size: tuple[int, int] | None = None,
    name: str = "image",
) -> Pictures:
    """One picture or several.

    Args:
        given: a PIL image, a list of them, or an array (H, W, C) or (K, H, W, C). An array with
            `latent_channels` channels is taken as latents.
        channels: of the pictures.
        latent_channels: of latents; None if no latents are accepted.
        factor: that height and width must be multiples of. PIL images are scaled down to one.
        size: (H, W) that they must have, or are scaled to; None: their own.
        name: of the argument, for messages.

    Raises:
        ValueError: they are something else, differ in size, or have a wrong size or range.
    """
    if (images := pil_images(given)) is not None:
        if channels not in MODES:
            raise ValueError(
                f"PIL images have 1, 3 or 4 channels, {name} must have {channels}: pass an array"
            )
        found = np.stack(
            _same_sizes([_pixels(one, channels, factor, size) for one in images], name)
        )
        latent = False
    else:
        found = _array(given, name)
        latent = np.ndim(given) == 4 and found.shape[-1] == latent_channels != channels
        if found.shape[-1] != channels and not latent:
            also = f" (or {latent_channels} of latents)" if latent_channels else ""
            raise ValueError(
                f"{name} must have {channels} channels{also}, last in the shape; got shape "
                f"{found.shape}"
            )
        if not latent:
            _check_range(found, name)
    height, width = found.shape[1:3]
    unit = 1 if latent else factor
    if height % unit or width % unit:
        raise ValueError(
            f"{name} must have sides that are multiples of {unit}, got {height}x{width}"
        )
    wanted = size if size is None or not latent else (size[0] // factor, size[1] // factor)
    if wanted not in (None, (height, width)):
        raise ValueError(f"{name} must be {wanted[0]}x{wanted[1]}, got {height}x{width}")
    return Pictures(found, latent)


def masks(given: Any, *, like: Any, size: tuple[int, int]) -> Float[np.ndarray, "k h w 1"]:
    """Masks of pictures: 1 where they are to be made, 0 where they are kept.

    Args:
        given: PIL images, or arrays (H, W), (K, H, W) or (K, H, W, 1), in [0, 1]; from 0.5 on 1.
        like: the pictures that were given, whose size they must have.
        size: (H, W) that PIL images are scaled to, as the pictures are.

    Raises:
        ValueError: they are something else, have transparent pixels, or another size than the
            pictures.
    """
    if (images := pil_images(given)) is not None:
        if any(_is_transparent(one) for one in images):
            raise ValueError(
                "mask_image has transparent pixels: it must be white where pictures are made and "
                "black where they are kept"
            )
        found = np.stack([_pixels(one, 1, 1, size) for one in images])
        sizes = {(one.height, one.width) for one in images}
    else:
        array = np.asarray(given)
        array = array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array
        found = _array(array[..., None], "mask_image")
        _check_range(found, "mask_image")
        sizes = {found.shape[1:3]}
    wanted = _size_of(like)
    if sizes != {wanted}:
        got = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise ValueError(
            f"mask_image must have the size of image, {wanted[0]}x{wanted[1]}; got {got}"
        )
    if found.shape[1:3] != size:
        raise ValueError(
            f"image and mask_image must be {size[0]}x{size[1]}, got {wanted[0]}x{wanted[1]}"
        )
    return (found >= 0.5).astype(np.float32)


def depths(
    given: Any, size: tuple[int, int], name: str = "depth_map"
) -> Float[np.ndarray, "k h w 1"]:
    """Depths at the size of latents, each scaled to [-1, 1]; a constant one is 0.

    Args:
        given: (H, W) or (K, H, W), of any size and range.
        size: (h, w) of the latents.
        name: of the argument, for messages.

    Raises:
        ValueError: another shape, or numbers that are not finite.
    """
    array = np.asarray(given, np.float32)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be (H, W) or (K, H, W) finite numbers, got shape {np.shape(given)}"
        )
    rows, columns = (_cubic(*one) for one in zip(array.shape[1:], size, strict=True))
    small = np.einsum("hH,kHW,wW->khw", rows, array, columns)
    low, high = (end(small, axis=(1, 2), keepdims=True) for end in (np.min, np.max))
    span = high - low
    flat = span <= 1e-6 * np.maximum(np.abs(low), np.abs(high))
    scaled = 2 * (small - low) / np.where(flat, 1, span) - 1
    return np.where(flat, 0, scaled).astype(np.float32)[..., None]


def _cubic(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Torch's bicubic interpolation along one axis as a matrix: a = -0.75, edges repeated, without
    antialiasing.
    """
    a, matrix = BICUBIC, np.zeros((new, old))
    at = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(at).astype(int)
    for offset in (-1, 0, 1, 2):
        d = np.abs(at - first - offset)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        columns = np.clip(first + offset, 0, old - 1)
        np.add.at(matrix, (np.arange(new), columns), np.where(d <= 1, near, far))
    return matrix


def pil_images(given: Any) -> list[Image.Image] | None:
    """PIL images as people see them: turned as their EXIF data say. None for something else.

    Raises:
        ValueError: pixels of 32 bits, whose range is not known.
    """
    images: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    if not images or not all(isinstance(one, Image.Image) for one in images):
        return None
    return [_plain(ImageOps.exif_transpose(one)) for one in images]


def _plain(image: Image.Image) -> Image.Image:
    """An image of 8 bits; Pillow would cut those of 16 off at 255."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"a picture of mode {image.mode} has no known range: convert it first")
    return image


def _pixels(
    image: Image.Image, channels: int, factor: int, size: tuple[int, int] | None
) -> Float[np.ndarray, "h w c"]:
    """A PIL image in [0, 1], scaled to `size`, or to multiples of `factor`."""
    plain = image.convert(MODES[channels])
    height, width = size or (image.height // factor * factor, image.width // factor * factor)
    if not (height and width):
        raise ValueError(
            f"a picture must be at least {factor}x{factor}, got {image.height}x{image.width}"
        )
    if plain.size != (width, height):
        plain = plain.resize((width, height), LANCZOS)
    return np.asarray(plain, np.float32).reshape(height, width, channels) / 255


def _is_transparent(image: Image.Image) -> bool:
    """Whether some pixel lets through what is behind it."""
    return image.has_transparency_data and bool(
        np.any(np.asarray(image.convert("RGBA"))[..., 3] < 255)
    )


def _same_sizes(arrays: list[np.ndarray], name: str) -> list[np.ndarray]:
    sizes = sorted({array.shape[:2] for array in arrays})
    if len(sizes) > 1:
        got = ", ".join(f"{height}x{width}" for height, width in sizes[:10])
        raise ValueError(f"{name}: all pictures must have one size, got {got}")
    return arrays


def _array(given: Any, name: str) -> Float[np.ndarray, "k h w c"]:
    found = np.asarray(given) if hasattr(given, "shape") else None
    if found is None or found.dtype.kind in "biuOSUc":
        got = type(given).__name__ if found is None else f"an array of {found.dtype}"
        raise ValueError(
            f"{name} must be a PIL image, a list of them, or an array of floats; got {got}"
        )
    found = found[None] if found.ndim == 3 else found
    if found.ndim != 4 or 0 in found.shape:
        raise ValueError(f"{name} must be (H, W, C) or (K, H, W, C), got shape {np.shape(given)}")
    if not np.isfinite(found := found.astype(np.float32)).all():
        raise ValueError(f"{name} must be finite")
    return found


def _check_range(found: np.ndarray, name: str) -> None:
    low, high = found.min(), found.max()
    if low < 0 or high > 1:
        raise ValueError(f"{name} must lie in [0, 1], got {low:g} to {high:g}")


def _size_of(given: Any) -> tuple[int, int]:
    if (images := pil_images(given)) is not None:
        return images[0].height, images[0].width
    return np.shape(given)[-3], np.shape(given)[-2]
