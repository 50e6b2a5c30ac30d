"""`CLIPTokenizer` beside transformers', on CLIP's own vocabulary and on hostile texts.

The vocabulary comes with open_clip_torch: pip install --no-deps open_clip_torch
"""

import gzip
import json
import random
import shutil
from importlib import util
from pathlib import Path

import pytest
from transformers import CLIPTokenizer as Reference

import ddpm_jax as dj
from ddpm_jax.text.tokenizer import BOS, EOS

pytestmark = pytest.mark.skipif(
    util.find_spec("open_clip") is None,
    reason="needs CLIP's vocabulary: pip install --no-deps open_clip_torch",
)

PLAIN = [
    "a photograph of an astronaut riding a horse", "", " ", "hello world!", "A  CAT\n\ton the mat",
    "it's we've I'll they'd you're 'twas", "price: $1,234.56 (50% off)", "ein Mädchen mit Hut",
    "une fille à la plage, été 1987", "кошка сидит на окне", "一只猫坐在窗台上",
    "窓辺の猫、カタカナ",
    "창가에 앉은 고양이", "قطة على النافذة", "बिल्ली खिड़की पर", "แมวบนหน้าต่าง", "γάτα στο παράθυρο",
    "👩‍👩‍👧‍👦 family", "🏳️‍🌈🇫🇷 flags", "👍🏽 thumbs", "“curly” ‘quotes’ — dashes…",
    "&amp; &lt;b&gt;",
    "ﬁligree ﬀ ligatures", "ｆｕｌｌ ｗｉｄｔｈ", "a\u0301 e\u0308 combining",
    "\u200bzero\u200dwidth\ufeff",
    "<|startoftext|> inside", "<|endoftext|>", "<|EndOfText|>", "a<|endoftext|>b", "!!!", "a!b ! c",
    "x" * 300, "word " * 120, "1234567890" * 12, "()[]{}<>|\\/~`@#$%^&*_+-=", "\x00\x01\x7f\x85",
]  # fmt: skip
RANGES = [
    (0x20, 0x7F), (0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x5D0, 0x700), (0x900, 0xE00),
    (0x3040, 0x3100), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF), (0x0, 0xD7FF), (0xE000, 0x10FFFF),
]  # fmt: skip
PIECES = [
    *PLAIN[:30],
    BOS,
    EOS,
    "!",
    "'s",
    " ",
    "\u200d",
    "\ufe0f",
    "\n",
    "\u3000",
    "Ⅷ",
    "½",
    "İ",
    "ẞ",
]


def texts() -> list[str]:
    chance = random.Random(0)
    made = list(PLAIN)
    for _ in range(1200):
        low, high = chance.choice(RANGES)
        length = chance.randint(1, 60)
        made.append("".join(chr(chance.randrange(low, high)) for _ in range(length)))
    mixed = ("".join(chance.choices(PIECES, k=chance.randint(1, 6))) for _ in range(1200))
    return [*made, *mixed]


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's vocabulary, from the list of merges that OpenAI published."""
    spec = util.find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    packed = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")
    merges = [(first, second) for first, second in map(str.split, lines[1:48_895])]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    base = [*map(chr, printable), *(chr(256 + i) for i in range(len(others)))]
    tokens = [*base, *(one + "</w>" for one in base), *map("".join, merges), BOS, EOS]
    return {token: i for i, token in enumerate(tokens)}, merges


@pytest.fixture(scope="module")
def ours() -> dict[str, dj.CLIPTokenizer]:
    vocab, merges = vocabulary()
    assert len(vocab) == 49_408
    return {
        pad: dj.CLIPTokenizer.from_vocabulary(vocab, merges, pad_token=pad) for pad in (EOS, "!")
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Folders in the forms that are on the hub, by form and pad token; made by transformers."""
    vocab, merges = vocabulary()
    made: dict[tuple[str, str], Path] = {}
    for name, pad in (("1", EOS), ("2", "!")):
        old, new, flags = (tmp_path_factory.mktemp(form + name) for form in ("old", "new", "flags"))
        (old / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        lines = "\n".join(("#version: 0.2", *map(" ".join, merges)))
        (old / "merges.txt").write_text(lines, encoding="utf-8")
        special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": pad}
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
        (old / "tokenizer_config.json").write_text(json.dumps(config))
        Reference.from_pretrained(old).save_pretrained(new)
        assert (new / "tokenizer.json").is_file()
        assert not (new / "merges.txt").exists()
        shutil.copytree(old, flags, dirs_exist_ok=True)
        end = {"__type": "AddedToken", "content": EOS, "lstrip": False, "normalized": True}
        config |= {"eos_token": end | {"rstrip": False, "single_word": False}}
        (flags / "tokenizer_config.json").write_text(json.dumps(config))
        made |= {("old", pad): old, ("new", pad): new, ("flags", pad): flags}
    return made


@pytest.mark.parametrize("pad", [EOS, "!"], ids=["v1", "v2"])
@pytest.mark.parametrize("form", ["old", "new", "flags"])
@pytest.mark.filterwarnings("ignore:a text of more than 75 tokens")
def test_ids_equal_those_of_transformers(folders: dict[tuple[str, str], Path], form: str, pad: str):
    reference = Reference.from_pretrained(folders["old" if form == "new" else form, pad])
    given = texts()
    assert len(given) > 2000
    expected = reference(given, padding="max_length", max_length=77, truncation=True).input_ids
    found = dj.CLIPTokenizer.from_pretrained(folders[form, pad])(given)
    different = [
        text for text, row, wanted in zip(given, found, expected, strict=True) if [*row] != wanted
    ]
    assert found.shape == (len(given), 77)
    assert not different


@pytest.mark.parametrize("pad", [EOS, "!"], ids=["v1", "v2"])
@pytest.mark.filterwarnings("ignore:a text of more than 75 tokens")
def test_transformers_reads_what_is_saved(
    ours: dict[str, dj.CLIPTokenizer], tmp_path: Path, pad: str
):
    ours[pad].save_pretrained(tmp_path)
    reference, given = Reference.from_pretrained(tmp_path), texts()
    assert reference.model_max_length == 77
    expected = reference(given, padding="max_length", max_length=77, truncation=True).input_ids
    assert ours[pad](given).tolist() == expected
