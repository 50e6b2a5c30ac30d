"""A CLIP tokenizer with a small vocabulary: byte-pair encoding learned from captions.

The vocabulary has CLIP's form: 256 bytes, the same at the end of a word, the merges, and the two
special tokens. So `CLIPTokenizer` of ddpm_jax, transformers and diffusers read the folder.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import RobertaProcessing

BEGIN, END, OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
LENGTH = 32
"""Tokens of a caption with the two special ones; CLIP has 77."""
MERGES = 400
"""At most; the words of the captions need fewer."""


def learn(captions: Iterable[str], folder: Path) -> Tokenizer:
    """Writes the tokenizer's folder, and returns the tokenizer."""
    learner = _around(models.BPE(end_of_word_suffix=OF_WORD))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    count = 2 * len(alphabet) + MERGES
    trainer = trainers.BpeTrainer(
        vocab_size=count, initial_alphabet=alphabet, end_of_word_suffix=OF_WORD, show_progress=False
    )
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    vocab = _vocabulary(merges)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "vocab.json", json.dumps(vocab, ensure_ascii=False))
    _write(folder / "merges.txt", "\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n")
    special = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END}
    named = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, **special}
    _write(folder / "tokenizer_config.json", json.dumps(named, indent=2))
    _write(folder / "special_tokens_map.json", json.dumps(special, indent=2))
    bpe = models.BPE(
        vocab,
        merges,
        continuing_subword_prefix="",
        end_of_word_suffix=OF_WORD,
        fuse_unk=False,
        unk_token=END,
    )
    tokenizer = _around(bpe)
    tokenizer.add_special_tokens([BEGIN, END])
    tokenizer.post_processor = RobertaProcessing(
        (END, vocab[END]), (BEGIN, vocab[BEGIN]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """(B, 32) int32, cut or padded."""
    end = tokenizer.token_to_id(END)
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH, pad_id=end, pad_token=END)
    return np.array([one.ids for one in tokenizer.encode_batch(list(texts))], np.int32)


def _around(model: models.BPE) -> Tokenizer:
    """CLIP's tokenizer around a model."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's order of bytes
    others = [chr(256 + n) for n in range(256 - len(printed))]
    alphabet = [*map(chr, printed), *others]
    tokens = [*alphabet, *(one + OF_WORD for one in alphabet), *map("".join, merges), BEGIN, END]
    return {token: place for place, token in enumerate(tokens)}


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
