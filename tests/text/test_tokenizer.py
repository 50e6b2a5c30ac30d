"""`CLIPTokenizer` on a small vocabulary: rows, folders of both forms, and bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text.vocabulary import vocabulary

import ddpm_jax as dj
from ddpm_jax.text.tokenizer import (
    ADDED,
    BOS,
    EOS,
    MERGES,
    SPECIAL,
    TOKENIZER,
    VOCAB,
    checked_texts,
)

VOCABULARY, PAIRS = vocabulary()
END = VOCABULARY[EOS]
CONFIG = "tokenizer_config.json"


def tokenizer(**fields: Any) -> dj.CLIPTokenizer:
    return dj.CLIPTokenizer.from_vocabulary(VOCABULARY, PAIRS, **fields)


def ids(*tokens: str) -> list[int]:
    return [VOCABULARY[token] for token in tokens]


@pytest.mark.parametrize("pad", [EOS, "!"])
def test_a_row(pad: str):
    made = tokenizer(max_length=8, pad_token=pad)
    rows = made(["A  Cat's\n", ""])
    assert rows.dtype == np.int32
    start, end, fill = ids(BOS, EOS, pad)
    assert rows[0].tolist() == [start, *ids("a</w>", "cat</w>", "'", "s</w>"), end, fill, fill]
    assert rows[1].tolist() == [start, end, *[fill] * 6]
    np.testing.assert_array_equal(made("A  Cat's\n"), rows[:1])


def test_a_typed_pad_token_is_one_id():
    assert tokenizer(pad_token="!", max_length=6)("cat!")[0, 1:4].tolist() == ids(
        "cat</w>", "!", EOS
    )
    assert tokenizer(max_length=6)("cat!")[0, 1:4].tolist() == ids("cat</w>", "!</w>", EOS)


def test_what_is_cut_off_is_named():
    made = tokenizer(max_length=5)
    with pytest.warns(UserWarning, match="more than 3 tokens is cut off; lost: 'Dog, a hat'"):
        row = made("cat dog Cat Dog, a hat")[0]
    assert row.tolist() == ids(BOS, "cat</w>", "dog</w>", "cat</w>", EOS)
    assert made("cat dog cat").tolist() == [row.tolist()]


def test_a_long_loss_is_shortened():
    with pytest.warns(UserWarning, match=r"lost: '.{200}'\.\.\.$"):
        tokenizer(max_length=4)("cat " * 200)


@pytest.mark.parametrize("files", ["new", "old", "bare"])
@pytest.mark.parametrize("pad", [EOS, "!"])
def test_folders(tmp_path: Path, files: str, pad: str):
    made = tokenizer(max_length=9, pad_token=pad)
    made.save_pretrained(tmp_path / "tokenizer")
    gone = {"new": (VOCAB, MERGES, SPECIAL), "old": (TOKENIZER,), "bare": (TOKENIZER, CONFIG)}
    for name in gone[files]:
        (tmp_path / "tokenizer" / name).unlink()
    for folder in (tmp_path, tmp_path / "tokenizer"):
        read = dj.CLIPTokenizer.from_pretrained(folder)
        text = ["a dog! <|endoftext|>", "it's <|startoftext|>"]
        found = read(text)
        # Without a config the length is that of CLIP.
        assert read.max_length == (77 if files == "bare" else 9)
        np.testing.assert_array_equal(found[:, :9], made(text))


def test_the_length_that_transformers_writes_for_unknown(tmp_path: Path):
    tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | {"model_max_length": 1e30}))
    assert dj.CLIPTokenizer.from_pretrained(tmp_path).max_length == 77


def test_tokens_in_a_dict(tmp_path: Path):
    """Configs of transformers 4 name a token with its flags."""
    tokenizer(pad_token="!").save_pretrained(tmp_path)
    (tmp_path / TOKENIZER).unlink()
    (tmp_path / CONFIG).write_text(json.dumps({"pad_token": {"content": "!", "normalized": False}}))
    assert dj.CLIPTokenizer.from_pretrained(tmp_path)("")[0, -1] == VOCABULARY["!"]


def test_added_tokens(tmp_path: Path):
    """Textual inversion adds tokens after the vocabulary."""
    made = tokenizer(added_tokens={"<my-cat>": END + 1, "<my-dog>": END + 2}, max_length=6)
    row = made("a <my-dog>")[0].tolist()
    assert row == [*ids(BOS, "a</w>"), END + 2, END, END, END]
    assert made.vocab_size == END + 3
    made.save_pretrained(tmp_path)
    for gone in (None, TOKENIZER):
        if gone:
            (tmp_path / gone).unlink()
        assert dj.CLIPTokenizer.from_pretrained(tmp_path)("a <my-dog>").tolist() == [row]
    (tmp_path / ADDED).write_text(json.dumps({"<my-dog>": END + 7}))
    with pytest.raises(ValueError, match="ids of added tokens"):
        dj.CLIPTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({TOKENIZER: None, MERGES: None}, "no merges.txt: a tokenizer needs"),
        ({TOKENIZER: None, VOCAB: None, MERGES: None}, "no vocab.json and no merges.txt"),
        ({TOKENIZER: "{"}, f"{TOKENIZER} cannot be read"),
        ({TOKENIZER: None, VOCAB: "{"}, f"{VOCAB} cannot be read as JSON"),
        ({TOKENIZER: None, MERGES: "#version: 0.2\na b c\n"}, "two tokens, got 'a b c'"),
        ({TOKENIZER: None, MERGES: "nothing here\n"}, "do not belong together"),
        ({TOKENIZER: None, VOCAB: '{"a": 0}'}, "vocabulary has no <|startoftext|>"),
        ({CONFIG: '{"tokenizer_class": "T5Tokenizer"}'}, "is a T5Tokenizer, but only"),
        ({CONFIG: '{"pad_token": "<none>"}'}, "does not have the pad_token '<none>'"),
        ({CONFIG: '{"model_max_length": 1}'}, "max_length must be at least 2, got 1"),
    ],
)
def test_damaged_folders(tmp_path: Path, files: dict[str, str | None], named: str):
    tokenizer().save_pretrained(tmp_path)
    for name, content in files.items():
        (tmp_path / name).unlink()
        if content is not None:
            (tmp_path / name).write_text(content)
    with pytest.raises(ValueError) as caught:
        dj.CLIPTokenizer.from_pretrained(tmp_path)
    assert named in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_tokenizer_without_ends():
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    with pytest.raises(ValueError, match="an empty text has 0 tokens, not 2"):
        dj.CLIPTokenizer(Tokenizer(BPE()))


@pytest.mark.parametrize(
    ("texts", "got"),
    [(3, "int"), (None, "NoneType"), (b"cat", "bytes"), ([], "an empty list"), (["a", 3], "int 3")],
)
def test_what_is_no_text(texts: Any, got: str):
    with pytest.raises(ValueError, match=f"texts must be a text or a list of texts, got {got}"):
        checked_texts(texts, "texts")
