"""The emoji set, drawn from a tiny color font, and from the real one if it is installed."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import features

from ddpm_jax.training.data import Data, open_source

pytest.importorskip("emoji", reason="needs emoji: pip install -e '.[test]'")
pytestmark = pytest.mark.skipif(
    not (features.check("raqm") and features.check("fribidi")),
    reason="this Pillow has no layout for sequences",
)

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "emoji.ttf"
"""Made by make_emoji_font.py in the same folder: squares of 32 pixels, on 34 x 32."""

FACE, MAN, WOMAN, ZWJ = "😀", "👨", "👩", "\u200d"
KEYCAP, FLAG, COUPLE = "#\ufe0f\u20e3", "\U0001f1e9\U0001f1ea", MAN + ZWJ + WOMAN
COLORS = {
    KEYCAP: (0, 128, 128),
    FLAG: (255, 215, 0),
    MAN: (255, 0, 0),
    COUPLE: (128, 0, 128),
    FACE: (0, 0, 255),
}
"""What the tiny font draws as one image of its own, in the order of the images."""

ABSENT = {
    "a sequence that falls apart": WOMAN + ZWJ + MAN,
    "half a flag and nothing more": FLAG[::-1],
    "no such character: .notdef": "🧿",
    "an image that is there already": WOMAN,
    "an empty image": "⭐",
}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a short list of emoji."""
    spec = importlib.util.spec_from_file_location(
        "emoji_example", ROOT / "examples" / "draw_emoji.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "emoji_list", lambda: sorted([*COLORS, *ABSENT.values()]))
    return module


@pytest.mark.parametrize("size", [8, 17])
def test_one_image_each_in_order_and_without_halo(example: ModuleType, tmp_path: Path, size: int):
    """A square of 32 on 34 white pixels: the same from all sides, and its mean is known."""
    example.main([str(tmp_path / "e.npz"), "--size", str(size), "--font", str(TINY)])
    source = open_source(Data(name=str(tmp_path / "e.npz")))
    assert source.shape == (size, size, 3)
    images = np.load(tmp_path / "e.npz")["image"]
    middle = [tuple(image[size // 2, size // 2].tolist()) for image in images]
    assert middle == list(COLORS.values())
    blue = images[-1].astype(float)
    for turned in (blue[::-1], blue[:, ::-1], blue.transpose(1, 0, 2)):
        np.testing.assert_allclose(turned, blue, atol=1)  # rounding
    assert (blue[..., 2] == 255).all()  # no ringing: blue and white are both 255 there
    # At a point of the original, the weights of all pixels sum to 1 only nearly.
    assert blue[..., 0].mean() == pytest.approx(255 * (1 - (32 / 34) ** 2), abs=0.02 * 255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["e.npz", "--size", "7"], "--size must be in 8..128, got 7"),
        (["e.png"], "must end in .npz, got e.png"),
        (["e.npz", "--font", "text.ttf"], "has no bitmaps of size 109"),
        (["e.npz"], "apt install fonts-noto-color-emoji"),
    ],
)
def test_wrong_arguments(
    example: ModuleType,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    (tmp_path / "text.ttf").write_text("not a font")
    with pytest.raises(SystemExit):
        example.main(arguments)
    assert message in capsys.readouterr().err


def test_noto_draws_sequences_as_one_image(example: ModuleType):
    try:
        font = example.find_font()
    except FileNotFoundError:
        pytest.skip("the font Noto Color Emoji is not installed; the tiny font stands in for it")
    family = MAN + ZWJ + MAN + ZWJ + "\U0001f467"
    france, saint_martin = "\U0001f1eb\U0001f1f7", "\U0001f1f2\U0001f1eb"
    whole = [KEYCAP, FLAG, france, FACE, MAN, family]
    images = example.render([*whole, FLAG[0] + MAN, saint_martin], example.load_font(font), 32)
    assert len(images) == len(whole)
