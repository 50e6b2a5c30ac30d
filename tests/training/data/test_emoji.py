"""The emoji as data: drawn from a tiny colour font, and from the real one where it is installed."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import features

from ddpm_jax.training.data import emoji
from ddpm_jax.training.data.emoji import emoji_images

pytest.importorskip("emoji", reason="needs emoji: pip install -e '.[train]'")
pytestmark = pytest.mark.skipif(
    not (features.check("raqm") and features.check("fribidi")),
    reason="this Pillow has no layout for sequences",
)

TINY = Path(__file__).parents[2] / "data" / "emoji.ttf"
"""Made by make_emoji_font.py beside it: squares of 32 pixels, on 34 x 32."""

FACE, MAN, WOMAN, ZWJ = "😀", "👨", "👩", "\u200d"
KEYCAP, FLAG, COUPLE = "#\ufe0f\u20e3", "\U0001f1e9\U0001f1ea", MAN + ZWJ + WOMAN
COLOURS = {
    KEYCAP: (0, 128, 128),
    FLAG: (255, 215, 0),
    MAN: (255, 0, 0),
    COUPLE: (128, 0, 128),
    FACE: (0, 0, 255),
}
"""What the tiny font draws as one picture of its own, sorted as the pictures should be."""

try:
    NOTO = emoji.find_font()
except FileNotFoundError:
    NOTO = None

ABSENT = {
    "a sequence that falls apart": WOMAN + ZWJ + MAN,
    "half a flag, as all that there is": FLAG[::-1],
    "no such character: .notdef": "🧿",
    "a picture there already": WOMAN,
    "an empty picture": "⭐",
}

DRAWN_AGAIN = "drawn again"


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's cache or fonts, nor more than a few emoji."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "system"))
    monkeypatch.delenv(emoji.FONT_VARIABLE, raising=False)
    return tmp_path


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sorted([*COLOURS, *ABSENT.values()])
    monkeypatch.setattr(emoji, "emoji_list", lambda: texts)


@pytest.fixture
def forbid_drawing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(*_: object) -> None:
        raise AssertionError(DRAWN_AGAIN)

    return lambda: monkeypatch.setattr(emoji, "render", refuse)


@pytest.mark.usefixtures("few")
def test_one_picture_each_in_order_sequences_too() -> None:
    images = emoji_images(17, TINY)
    assert images.dtype == np.uint8
    assert [tuple(image[8, 8].tolist()) for image in images] == list(COLOURS.values())


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("size", [8, 16, 17, 32])
def test_pictures_are_whole_centred_and_without_halo(size: int) -> None:
    """A square of 32 on 34 white pixels: the same seen from all sides, and its mean is known."""
    image = emoji_images(size, TINY)[-1].astype(float)  # blue on white
    for turned in (image[::-1], image[:, ::-1], image.transpose(1, 0, 2)):
        np.testing.assert_allclose(turned, image, atol=1)  # rounding
    assert (image[..., 2] == 255).all()  # no ringing: blue and white are both 255 there
    assert image[0, 0, 0] > 0  # the margin
    # At a point of the original, the weights that all pixels give it add up to 1 only nearly.
    assert image[..., 0].mean() == pytest.approx(255 * (1 - (32 / 34) ** 2), abs=0.02 * 255)


@pytest.mark.usefixtures("few")
def test_a_second_call_reads_what_the_first_kept(
    somewhere_else: Path, forbid_drawing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = emoji_images(9, TINY)
    (kept,) = (somewhere_else / "cache").rglob("*.*")
    assert kept.parent == somewhere_else / "cache" / "ddpm_jax" / "emoji"
    forbid_drawing()
    np.testing.assert_array_equal(emoji_images(9, TINY), first)
    with pytest.raises(AssertionError, match=DRAWN_AGAIN):
        emoji_images(10, TINY)
    other = somewhere_else / "other.ttf"
    other.write_bytes(TINY.read_bytes() + b"\0")
    with pytest.raises(AssertionError, match=DRAWN_AGAIN):
        emoji_images(9, other)
    monkeypatch.setattr(emoji, "emoji_list", lambda: [FACE])
    with pytest.raises(AssertionError, match=DRAWN_AGAIN):
        emoji_images(9, TINY)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "another shape", "another type"])
def test_a_damaged_file_is_drawn_again_and_replaced(somewhere_else: Path, damage: str) -> None:
    first = emoji_images(9, TINY)
    (kept,) = (somewhere_else / "cache").rglob("*.npy")
    whole = kept.read_bytes()
    if damage == "another shape":
        np.save(kept, first[:, :8])
    elif damage == "another type":
        np.save(kept, first.astype(np.int16))
    else:
        kept.write_bytes({"cut": whole[:-1], "empty": b"", "text": b"so what"}[damage])
    np.testing.assert_array_equal(emoji_images(9, TINY), first)
    assert kept.read_bytes() == whole


@pytest.mark.usefixtures("few")
def test_a_cache_that_cannot_be_written_is_told(somewhere_else: Path) -> None:
    (somewhere_else / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="drawn anew next time"):
        assert len(emoji_images(9, TINY)) == len(COLOURS)


@pytest.mark.usefixtures("few")
def test_a_full_disk_leaves_no_file(somewhere_else: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(out: object, _: object) -> None:
        out.write(b"half")  # pyright: ignore[reportAttributeAccessIssue]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", half)
    with pytest.warns(UserWarning, match="No space left"):
        emoji_images(9, TINY)
    assert list((somewhere_else / "cache" / "ddpm_jax" / "emoji").iterdir()) == []


def test_the_font_is_found(somewhere_else: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = install(somewhere_else / "system" / "fonts" / "truetype" / "noto")
    assert emoji.find_font() == system
    home = install(somewhere_else / "home" / ".local" / "share" / "fonts")
    assert emoji.find_font() == home
    monkeypatch.setenv(emoji.FONT_VARIABLE, str(system))
    assert emoji.find_font() == system
    assert emoji.find_font(str(TINY)) == TINY


def install(folder: Path) -> Path:
    folder.mkdir(parents=True)
    font = folder / emoji.FONT_NAME
    font.write_bytes(TINY.read_bytes())
    return font


def test_no_font(somewhere_else: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        emoji_images(16)
    for wanted in (
        "apt install fonts-noto-color-emoji",
        emoji.FONT_VARIABLE,
        str(somewhere_else / "system" / "fonts"),
    ):
        assert wanted in str(caught.value)
    monkeypatch.setenv(emoji.FONT_VARIABLE, "/nowhere.ttf")
    with pytest.raises(FileNotFoundError, match=rf"/nowhere\.ttf.*{emoji.FONT_VARIABLE}"):
        emoji_images(16)


def test_a_file_that_is_no_such_font(somewhere_else: Path) -> None:
    text = somewhere_else / "text.ttf"
    text.write_text("not a font")
    with pytest.raises(ValueError, match=r"text\.ttf has no bitmaps of size 109"):
        emoji_images(16, text)
    other = somewhere_else / "other.ttf"
    whole, strike = TINY.read_bytes(), bytes([109, 109, 32, 1])  # its size, bits and flags
    assert whole.count(strike) == 1
    other.write_bytes(whole.replace(strike, bytes([64, 64, 32, 1])))
    with pytest.raises(ValueError, match=r"other\.ttf has no bitmaps of size 109"):
        emoji_images(16, other)


def test_a_font_without_colour_is_refused(
    somewhere_else: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoji, "A_FACE", "#")  # which is black
    with pytest.raises(ValueError, match="no coloured #"):
        emoji_images(16, TINY)


@pytest.mark.parametrize("size", [7, 129])
def test_sizes_out_of_range(size: int) -> None:
    with pytest.raises(ValueError, match=rf"size must be in 8\.\.128, got {size}"):
        emoji_images(size, TINY)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(features, "check", lambda name: name != "fribidi")
        with pytest.raises(ImportError, match="needs fribidi in Pillow"):
            emoji_images(16, TINY)
    monkeypatch.setitem(sys.modules, "emoji", None)
    with pytest.raises(ImportError, match=r"emoji: pip install 'ddpm-jax\[train\]'"):
        emoji_images(16, TINY)


def test_the_list_has_sequences_and_no_half_qualified_ones() -> None:
    texts = emoji.emoji_list()
    assert texts == sorted(set(texts))
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    toned, scotland = "👍\U0001f3fd", "🏴" + "".join(chr(0xE0000 + ord(c)) for c in "gbsct\x7f")
    heart, bare_heart, tone_alone = "❤\ufe0f", "❤", "\U0001f3fd"
    assert {FACE, KEYCAP, FLAG, family, toned, scotland, heart} <= set(texts)
    assert not {bare_heart, tone_alone} & set(texts)
    assert len(texts) >= 3782  # those of Emoji 15.1


@pytest.mark.skipif(NOTO is None, reason="the font Noto Color Emoji is not installed")
def test_noto_draws_sequences_as_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    family, bare = MAN + ZWJ + MAN + ZWJ + "\U0001f467", "\U0001f469\U0001f3fe"
    toned = f"{bare}{ZWJ}\u2764\ufe0f{ZWJ}\U0001f468\U0001f3fb"
    france, saint_martin = "\U0001f1eb\U0001f1f7", "\U0001f1f2\U0001f1eb"
    whole = [KEYCAP, FLAG, france, FACE, MAN, family, bare, toned]
    broken = [FLAG[0] + MAN, family + FACE, "\u0378", saint_martin]
    monkeypatch.setattr(emoji, "emoji_list", lambda: whole + broken)
    images = emoji_images(32, NOTO)
    assert len(images) == len(whole)
    assert (images[:, [0, -1]] > 200).all()  # a margin at the top and at the foot
    for image in images:
        columns = np.flatnonzero((image < 250).any(axis=(0, 2)))
        assert abs(columns[0] + columns[-1] - 31) <= 1  # as far from the left as from the right
