"""CLIP's tokenizer: byte pair encoding of lower-cased text, on the `tokenizers` library.

    ids = [bos, up to max_length - 2 tokens of the text, eos, pad, pad, ...]

A folder has `tokenizer.json`, or `vocab.json` and `merges.txt` as older ones do. The padding is the
end token in Stable Diffusion 1.x, and "!" (id 0) in 2.x.

Reference: Radford et al. 2021, arXiv:2103.00020, section 2.4; Sennrich et al. 2016,
arXiv:1508.07909.
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
from jaxtyping import Int32

from ddpm_jax._typing import is_number, is_whole
from ddpm_jax.hub import hub
from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.hub.files import faults_of, read_json, replacing, write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 77
"""Of CLIP's text encoders."""
SHOWN = 200
"""Characters of a lost text in a warning."""

TOKENIZER, VOCAB, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
SPECIAL, ADDED = "special_tokens_map.json", "added_tokens.json"

WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
"""What a text is split into: words, single digits, and runs of other characters."""


class CLIPTokenizer:
    """Texts to token ids: `tokenizer(["a cat", "a dog"])`.

    Args:
        tokenizer: a `tokenizers.Tokenizer` that puts a begin and an end token around a text.
        max_length: tokens of a row, the begin and end token included, at least 2.
        pad_token: what fills a row.

    Attributes:
        max_length: tokens of a row.
        pad_token: what fills a row.
        vocab_size: number of tokens.

    Raises:
        ValueError: the tokenizer adds no begin and end token, or has no `pad_token`; or
            `max_length` is below 2.
    """

    files: ClassVar = ComponentFiles(
        folder="tokenizer",
        config="tokenizer_config.json",
        classes=("CLIPTokenizer", "CLIPTokenizerFast"),
        others=(TOKENIZER, VOCAB, MERGES, SPECIAL, ADDED),
        library="transformers",
    )

    def __init__(
        self, tokenizer: "Tokenizer", *, max_length: int = MAX_LENGTH, pad_token: str = EOS
    ):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        ends, pad = tokenizer.encode("").ids, tokenizer.token_to_id(pad_token)
        if len(ends) != 2:
            raise ValueError(f"not a CLIP tokenizer: an empty text has {len(ends)} tokens, not 2")
        if pad is None:
            raise ValueError(f"the vocabulary does not have the pad_token {pad_token!r}")
        if max_length < 2:
            raise ValueError(f"max_length must be at least 2, got {max_length}")
        self._tokenizer, self._eos, self._pad, self.pad_token = tokenizer, ends[1], pad, pad_token
        self.max_length = max_length
        self.vocab_size = tokenizer.get_vocab_size()

    @classmethod
    def from_vocabulary(
        cls,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        max_length: int = MAX_LENGTH,
        pad_token: str = EOS,
        added_tokens: Mapping[str, int] | None = None,
    ) -> "CLIPTokenizer":
        """A tokenizer from the content of `vocab.json` and `merges.txt`.

        Args:
            vocab: ids by token, with a begin and an end token, `<|startoftext|>` and
                `<|endoftext|>`.
            merges: pairs of tokens, the first is merged first.
            max_length: as in the constructor.
            pad_token: as in the constructor.
            added_tokens: further tokens that are never split, with the ids that follow.

        Raises:
            ValueError: as the constructor; or the vocabulary lacks a token that it needs.
        """
        tokenizer = _built(vocab, merges, pad_token, added_tokens or {})
        return cls(tokenizer, max_length=max_length, pad_token=pad_token)

    @classmethod
    def from_pretrained(
        cls, name: hub.Name, *, subfolder: str | None = None, **options: Unpack[hub.HubOptions]
    ) -> "CLIPTokenizer":
        """The tokenizer of a local folder, a hub id or a bundled name.

        Args:
            name: a pipeline's folder, or the tokenizer's own.
            subfolder: look only there.
            **options: revision, cache_dir, token, local_files_only; see `HubOptions`.

        Raises:
            TypeError: an unknown option.
            ValueError: it does not exist, lacks files, has damaged files, or is of another class.
            OSError: it is not on the hub, or access is denied.
        """
        return cls.read(hub.component(name, cls.files, subfolder=subfolder, **options))

    @classmethod
    def read(cls, folder: Path) -> "CLIPTokenizer":
        """The tokenizer in its own folder.

        Raises:
            ValueError: as `from_pretrained`.
        """
        config, special = (
            read_json(folder / name) if (folder / name).is_file() else {}
            for name in (cls.files.config, SPECIAL)
        )
        named = config.get("tokenizer_class", cls.__name__)
        if named not in cls.files.classes:
            raise ValueError(f"{folder} is a {named}, but only {cls.__name__} is supported")
        pad_token = _content(config.get("pad_token") or special.get("pad_token")) or EOS
        length = config.get("model_max_length") or MAX_LENGTH
        with faults_of(folder):
            if not is_number(length):
                raise ValueError(f"model_max_length must be a number, got {length!r}")
            if not isinstance(pad_token, str):
                raise ValueError(f"pad_token must be a text, got {pad_token!r}")
            # transformers writes 1e30 where the length is not known.
            rest: dict[str, Any] = {
                "pad_token": pad_token,
                "max_length": int(min(length, MAX_LENGTH)),
            }
            if (folder / TOKENIZER).is_file():
                return cls(_opened(folder / TOKENIZER), **rest)
            missing = [name for name in (VOCAB, MERGES) if not (folder / name).is_file()]
            if missing:
                raise ValueError(
                    f"no {' and no '.join(missing)}: a tokenizer needs {TOKENIZER}, or {VOCAB} and "
                    f"{MERGES}"
                )
            added = read_json(folder / ADDED) if (folder / ADDED).is_file() else None
            if not all(map(is_whole, (added or {}).values())):
                raise ValueError(f"{ADDED} must have a number for each token")
            merges = _read_merges(folder / MERGES)
            return cls.from_vocabulary(
                read_json(folder / VOCAB), merges, added_tokens=added, **rest
            )

    def __call__(self, texts: str | Sequence[str]) -> Int32[np.ndarray, "b n"]:
        """The ids of texts.

        A text that is too long is cut off, with a warning that names what is lost.

        Args:
            texts: one text, or several.

        Returns:
            (B, max_length) int32; B is 1 for one text.

        Raises:
            ValueError: it is not a text or a sequence of texts.
        """
        checked = checked_texts(texts, "texts")
        rows = np.full((len(checked), self.max_length), self._pad, np.int32)
        for i, (text, encoded) in enumerate(
            zip(checked, self._tokenizer.encode_batch(checked), strict=True)
        ):
            ids, last = encoded.ids, self.max_length - 1
            if len(ids) > self.max_length:
                lost = text[encoded.offsets[last][0] :]
                ids = [*ids[:last], self._eos]
                warnings.warn(
                    f"a text of more than {self.max_length - 2} tokens is cut off; lost: "
                    f"{lost[:SHOWN]!r}{'...' if len(lost) > SHOWN else ''}",
                    stacklevel=2,
                )
            rows[i, : len(ids)] = ids
        return rows

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Writes the files that transformers and this class read, old and new ones.

        The folder is created if it is missing.
        """
        folder, text = Path(path), self._tokenizer.to_str(pretty=True)
        folder.mkdir(parents=True, exist_ok=True)
        model = json.loads(text)["model"]
        pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"])
        added = {
            token: i
            for token, i in self._tokenizer.get_vocab().items()
            if token not in model["vocab"]
        }
        special = {
            "bos_token": BOS, "eos_token": EOS, "pad_token": self.pad_token, "unk_token": EOS
        }  # fmt: skip
        texts = {TOKENIZER: text, MERGES: "\n".join(("#version: 0.2", *pairs)) + "\n"}
        for name, content in texts.items():
            with replacing(folder / name) as partial:
                partial.write_text(content, encoding="utf-8")
        write_json(folder / VOCAB, model["vocab"])
        if added:
            write_json(folder / ADDED, added)
        write_json(folder / SPECIAL, special)
        config = {
            "tokenizer_class": type(self).__name__,
            "model_max_length": self.max_length,
            "do_lower_case": True,
            "add_prefix_space": False,
            "errors": "replace",
        }
        write_json(folder / self.files.config, config | special)


def checked_texts(texts: Any, name: str) -> list[str]:
    """One text or several, as a list.

    Raises:
        ValueError: it is something else. The message calls it `name`.
    """
    given = [texts] if isinstance(texts, str) else texts
    if not isinstance(given, Sequence) or isinstance(given, bytes):
        raise ValueError(f"{name} must be a text or a list of texts, got {type(texts).__name__}")
    wrong = [one for one in given if not isinstance(one, str)]
    if wrong or not given:
        got = f"{type(wrong[0]).__name__} {wrong[0]!r:.80}" if wrong else "an empty list"
        raise ValueError(f"{name} must be a text or a list of texts, got {got}")
    return list(given)


def _built(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    pad_token: str,
    added: Mapping[str, int],
) -> "Tokenizer":
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    missing = [token for token in (BOS, EOS, pad_token) if token not in vocab]
    if missing:
        raise ValueError(f"the vocabulary has no {', '.join(missing)}")
    try:
        model = BPE(
            vocab=dict(vocab),
            merges=list(merges),
            unk_token=EOS,
            end_of_word_suffix="</w>",
            continuing_subword_prefix="",
            fuse_unk=False,
        )
    except Exception as error:  # the library raises no class of its own
        raise ValueError(f"the vocabulary and the merges do not belong together: {error}") from None
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
    special = [AddedToken(BOS, normalized=True), AddedToken(EOS, normalized=False)]
    special += [AddedToken(pad_token, normalized=False)] if pad_token != EOS else []
    tokenizer.add_special_tokens(special)
    in_order = sorted(set(added) - set(vocab), key=lambda token: added[token])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in in_order])
    wrong = [token for token in in_order if tokenizer.token_to_id(token) != added[token]]
    if wrong:
        raise ValueError(f"the ids of added tokens do not follow the vocabulary: {wrong[0]}")
    tokenizer.post_processor = processors.RobertaProcessing(
        (EOS, vocab[EOS]), (BOS, vocab[BOS]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def _opened(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no class of its own
        raise ValueError(f"{path} cannot be read: {error}") from None


def _read_merges(path: Path) -> list[tuple[str, str]]:
    first, *others = path.read_text(encoding="utf-8").split("\n")
    lines = others if first.startswith("#version") else [first, *others]
    pairs = [tuple(line.split(" ")) for line in lines if line]
    wrong = next((pair for pair in pairs if len(pair) != 2), None)
    if wrong is not None:
        raise ValueError(f"{path}: a line must hold two tokens, got {' '.join(wrong)!r}")
    return pairs  # pyright: ignore[reportReturnType]


def _content(token: Any) -> Any:
    """A token in a config: a text, or a dict with one; None if there is none."""
    return token.get("content") if isinstance(token, Mapping) else token
