"""How a text is split into words. Byte pair encoding merges pairs inside words only (chapter 5).

>>> list(split_words(compile_pattern(GPT4_PATTERN), "I'll pay 1234 ducats!"))
['I', "'ll", ' pay', ' ', '123', '4', ' ducats', '!']

A word is a match of a regular expression. In these patterns `\\p{L}` is a letter of any script,
`\\p{N}` is a digit of any script, and `\\s` is white space. The second `+` in `\\p{L}++` makes the
search faster and changes no match. Python's module `re` does not know `\\p`, but `regex` does.
"""

from collections.abc import Iterator

import regex

from gptlib.checks import check_arguments, checked_value
from gptlib.tokenizer import TokenizerError, check_surrogates

# The patterns are those that tiktoken publishes for gpt2 and cl100k_base.
GPT2_PATTERN = (
    # the end of a contraction, such as 'll
    r"'(?:[sdmt]|ll|ve|re)"
    # letters, then digits, then other visible characters, each with one space before them
    r"| ?\p{L}++"
    r"| ?\p{N}++"
    r"| ?[^\s\p{L}\p{N}]++"
    # white space at the end of the text
    r"|\s++$"
    # white space without its last character, which may begin the next word
    r"|\s+(?!\S)"
    # one white space character
    r"|\s"
)
GPT4_PATTERN = (
    # the end of a contraction, also in capitals, such as 'LL
    r"'(?i:[sdmt]|ll|ve|re)"
    # letters, with one other character before them, such as a space
    r"|[^\r\n\p{L}\p{N}]?+\p{L}++"
    # one, two or three digits
    r"|\p{N}{1,3}+"
    # other visible characters, with one space before them and with the line ends after them
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    # white space at the end of the text
    r"|\s++$"
    # white space up to its last line end
    r"|\s*[\r\n]"
    # white space without its last character, which may begin the next word
    r"|\s+(?!\S)"
    # one white space character
    r"|\s"
)


# the time for any text, to which a millisecond for each character is added
SECONDS = 10.0


def word_pattern(name: str, value: str) -> str:
    """The kind of a pattern: the text of a regular expression."""
    compile_pattern(checked_value(name, value, str))
    return value


def unicode_text(name: str, value: str) -> str:
    """The kind for texts that utf-8 can encode."""
    check_surrogates(checked_value(name, value, str))
    return value


@check_arguments(TokenizerError, pattern=str)
def compile_pattern(pattern: str) -> regex.Pattern:
    """Return the compiled pattern.

    Raises:
        TokenizerError: `pattern` is not a regular expression.
    """
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise TokenizerError(f"pattern {pattern!r} is not a regular expression: {error}") from None


def split_words(pattern: regex.Pattern, text: str, offset: int = 0) -> Iterator[str]:
    """Yield the words of `text`. Joined, they are the whole text.

    Args:
        offset: the position of `text` in a longer text. Errors give positions in the longer text.

    Raises:
        TokenizerError: `text` contains half a surrogate pair, or a character that is in no word, or
            the pattern needs more than 10 seconds and a millisecond for each character.
    """
    check_surrogates(text, offset)
    # A pattern of a stranger may need exponential time. The published patterns cannot, and without
    # a limit they are faster.
    is_published = pattern.pattern in (GPT2_PATTERN, GPT4_PATTERN)
    limit = None if is_published else SECONDS + len(text) / 1000
    length = 0
    try:
        # A list of all words would need many times the memory of the text.
        for match in pattern.finditer(text, timeout=limit):
            word = match[0]
            length += len(word)
            yield word
    except TimeoutError:
        raise TokenizerError(
            f"pattern {pattern.pattern!r} needs more than {limit:.0f} seconds for {len(text)} "
            "characters: take a pattern that tries fewer alternatives, such as GPT4_PATTERN"
        ) from None
    if length < len(text):
        position = _first_gap(pattern, text)
        raise TokenizerError(
            f"pattern {pattern.pattern!r} skips character {text[position]!r} at position "
            f"{offset + position}: every character should be in a word"
        )


def _first_gap(pattern: regex.Pattern, text: str) -> int:
    """Return the position of the first character that is in no match of `pattern`."""
    end = 0
    for match in pattern.finditer(text):
        if match.start() > end:
            break
        end = match.end()
    return end
