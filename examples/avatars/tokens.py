"""A CLIP tokenizer with a small vocabulary: byte-pair encoding learned from captions.

The vocabulary has CLIP's form: 256 bytes, the same at the end of a word, the merges, and the two
special tokens.
"""

import json
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from ddpm_jax.text.tokenizer import BOS, EOS, WORDS, CLIPTokenizer

LENGTH = 32
"""Tokens of a caption with the two special ones; Stable Diffusion has 77."""
END_OF_WORD = "</w>"
MERGES = 400
"""At most; the words of the captions need fewer."""


def learn(captions: Iterable[str]) -> CLIPTokenizer:
    """A tokenizer that has the captions' words as tokens."""
    alphabet = _alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + MERGES,
        initial_alphabet=alphabet,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    learner = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    ends = [one + END_OF_WORD for one in alphabet]
    tokens = [*alphabet, *ends, *map("".join, merges), BOS, EOS]
    vocab = {token: place for place, token in enumerate(tokens)}
    return CLIPTokenizer.from_vocabulary(vocab, merges, max_length=LENGTH)


def _alphabet() -> list[str]:
    """A character for each byte, in GPT-2's order."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, printed), *(chr(256 + n) for n in range(256 - len(printed)))]
