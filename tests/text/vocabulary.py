"""A small vocabulary for the tests: all bytes, some words, and the two ends."""

from ddpm_jax.text.tokenizer import BOS, EOS

WORDS = ("cat", "dog", "hat")


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids by token, and merges: letters, letters that end a word, and `WORDS`."""
    letters = [chr(code) for code in range(33, 127)]
    merges = [pair for word in WORDS for pair in ((word[0], word[1]), (word[:2], f"{word[2]}</w>"))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), BOS, EOS]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, list(dict.fromkeys(merges))
