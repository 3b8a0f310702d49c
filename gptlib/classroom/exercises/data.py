"""Chapter 10's exercises: repair mojibake, similarity of two texts, split documents by hash."""

import hashlib
from collections.abc import Callable

import torch

from gptlib.classroom.exercises._checking import Reader, Result, check
from gptlib.classroom.exercises._comparing import Wrong, close, compare, listed

LONGEST = 200           # answers that are texts are compared as tensors of this length


def _text(answer):
    """Return a text as a tensor: its length, its code points, and -1 at the end."""
    if isinstance(answer, bytes):
        raise Wrong("the function returns bytes. `.decode(…)` turns them into a text")
    if not isinstance(answer, str):
        raise Wrong(f"the function returns a value of type {type(answer).__name__}, "
                    "but it should return a text")
    codes = [ord(character) for character in answer[:LONGEST]]
    return torch.tensor([len(answer), *codes, *[-1] * (LONGEST - len(codes))])


def _number(answer):
    """Return a number as a tensor."""
    if isinstance(answer, bool) or not isinstance(answer, (int, float)):
        raise Wrong(f"the function returns a value of type {type(answer).__name__}, "
                    "but it should return a number")
    return torch.tensor(float(answer), dtype=torch.float64)


def _truth(answer):
    """Return True or False as a tensor."""
    if not isinstance(answer, bool):
        raise Wrong(f"the function returns a value of type {type(answer).__name__}, "
                    "but it should return True or False")
    return torch.tensor(float(answer), dtype=torch.float64)


def _returning(to_tensor: Callable, function: Callable) -> Callable:
    """Return a function that gives the result of `function` as a tensor."""
    return lambda **given: to_tensor(function(**given))


def _compare(reader: Reader, right, cases, mistakes, to_tensor, to_value) -> None:
    """Raise `Wrong` with a known mistake, or with the first answer that is not right."""
    mistakes = [(sentence, _returning(to_tensor, mistake)) for sentence, mistake in mistakes]
    trials = compare(reader, _returning(to_tensor, right), cases, mistakes, to_tensor)
    for trial in trials:
        if not close(trial.got, trial.expected):
            raise Wrong(f"for {listed(trial.given)} the function returns "
                        f"{to_value(trial.got)!r}, but {to_value(trial.expected)!r} is right")


# undo_mojibake ------------------------------------------------------------------------------------


def check_undo_mojibake(undo_mojibake) -> Result:
    """Check `undo_mojibake(text)`.

    It returns the text that was saved as utf-8 and read as cp1252. If that is impossible, it
    returns `text` as it is.
    """
    return check("undo_mojibake", undo_mojibake, _undo_properties,
                 "mojibake becomes the right text, and all other texts stay as they are")


def _right_undo(text):
    try:
        return text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return text


def _wrong(text):
    """Return mojibake: the text saved as utf-8 and read as cp1252."""
    return text.encode("utf-8").decode("cp1252")


def _undo_cases():
    texts = ["to be", "", _wrong("süß"), _wrong("Die Bäume blühen."), _wrong("naïve café – 5 €"),
             "süß", "Grüße", "ÄÖ", "für", "привет", "你好", "🙂", _wrong("über") + " 你",
             "Die Bäume blühen.", _wrong(_wrong("süß"))]
    return [{"text": text} for text in texts]


def _with_errors(encoding, decoding, how):
    def undo(text):
        return text.encode(encoding, how).decode(decoding, how)
    return undo


def _without_encode_error(text):
    try:
        return text.encode("cp1252").decode("utf-8")
    except UnicodeDecodeError:
        return text


def _without_decode_error(text):
    try:
        return text.encode("cp1252").decode("utf-8")
    except UnicodeEncodeError:
        return text


def _until_it_fails(text):
    before = None
    while text != before:
        before, text = text, _right_undo(text)
    return text


def _made_mojibake(text):
    try:
        return text.encode("utf-8").decode("cp1252")
    except UnicodeError:
        return text


def _latin_1(text):
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


UNDO_MISTAKES = [
    ("every text is returned as it is. Encode it as cp1252, and decode the bytes as utf-8",
     lambda text: text),
    ("the two encodings are swapped. The wrong program read the bytes as cp1252, so "
     'text.encode("cp1252") gives these bytes back',
     _made_mojibake),
    ("the encoding is latin-1. It lacks characters of cp1252, such as € and Ÿ",
     _latin_1),
    ("bytes that are not utf-8 are dropped. Such a text is not mojibake: return it as it is",
     _with_errors("cp1252", "utf-8", "ignore")),
    ("characters that do not fit are replaced. Such a text is not mojibake: return it as it is",
     _with_errors("cp1252", "utf-8", "replace")),
    ("the text is repaired again and again. Do it once",
     _until_it_fails),
    ("a text that is not mojibake becomes empty. Return it as it is",
     lambda text: _right_undo(text) if _right_undo(text) != text or text.isascii() else ""),
]


def _undo_properties(reader: Reader):
    _compare(reader, _right_undo, _undo_cases(), UNDO_MISTAKES, _text,
             lambda t: "".join(chr(int(code)) for code in t[1:] if code >= 0))


# similarity ---------------------------------------------------------------------------------------


def check_similarity(similarity) -> Result:
    """Check `similarity(a, b, n)`.

    It returns the Jaccard similarity of the sets of all runs of n words of two texts.
    """
    return check("similarity", similarity, _similarity_properties,
                 "it is the number of shared shingles, divided by the number of all shingles")


def _runs(text, n):
    words = text.split()
    return {tuple(words[i:i + n]) for i in range(len(words) - n + 1)}


def _share(shared, all_of_them):
    return shared / all_of_them if all_of_them else 0.0


def _similarity_with(runs, combine):
    return lambda a, b, n: combine(runs(a, n), runs(b, n))


def _jaccard(a, b):
    return _share(len(set(a) & set(b)), len(set(a) | set(b)))


_right_similarity = _similarity_with(_runs, _jaccard)


def _run_list(text, n):
    words = text.split()
    return [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]


def _similarity_cases():
    texts = [
        ("to be or not", "to be or not", 2),
        ("to be or not", "not or be to", 2),
        ("the king has a golden ring", "the king has a silver ring", 2),
        ("the king has a golden ring", "the king has a silver ring", 3),
        ("the king has a golden ring", "the king has a silver ring", 1),
        ("a b c d e f", "a b c", 2),
        ("a b c", "a b c d e f", 2),
        ("a b", "a b c", 3),
        ("", "", 1),
        ("a", "b", 2),
        ("to be to be to be", "to be or not to be", 2),
        ("To Be", "to be", 1),
        ("a b c d", "b c d e a b", 2),
        ("one  two\nthree four", "one two three four", 2),
        ("x y z x y z x", "y z x y", 3),
        ("ab c x", "a bc x", 2),
        ("Apple tree", "apple tree", 1),
    ]
    return [{"a": a, "b": b, "n": n} for a, b, n in texts]


def _counted(a, b):
    union = len(a) + len(b)
    return _share(sum(run in b for run in a), union)


SIMILARITY_MISTAKES = [
    ("the shared shingles are divided by those of both texts added up, so that shared ones count "
     "twice. Divide by len(A | B)",
     _similarity_with(_runs, lambda a, b: _share(len(a & b), len(a) + len(b)))),
    ("the shared shingles are divided by those of the first text. Divide by len(A | B)",
     _similarity_with(_runs, lambda a, b: _share(len(a & b), len(a)))),
    ("the shared shingles are divided by those of the second text. Divide by len(A | B)",
     _similarity_with(_runs, lambda a, b: _share(len(a & b), len(b)))),
    ("the shared shingles are divided by those of the shorter text. Divide by len(A | B)",
     _similarity_with(_runs, lambda a, b: _share(len(a & b), min(len(a), len(b))))),
    ("the shared shingles are divided by those of the longer text. Divide by len(A | B)",
     _similarity_with(_runs, lambda a, b: _share(len(a & b), max(len(a), len(b))))),
    ("the result is the number of shared shingles. Divide it by len(A | B)",
     _similarity_with(_runs, lambda a, b: float(len(a & b)))),
    ("the result is the share of shingles that are *not* shared. Count those in both sets",
     _similarity_with(_runs, lambda a, b: _share(len(a ^ b), len(a | b)))),
    ("single words are compared, whatever n is. A shingle is a run of n words",
     lambda a, b, n: _right_similarity(a, b, 1)),
    ("runs of n characters are compared. A shingle is a run of n words: use text.split()",
     lambda a, b, n: _jaccard({a[i:i + n] for i in range(len(a) - n + 1)},
                              {b[i:i + n] for i in range(len(b) - n + 1)})),
    ("a shingle that occurs twice counts twice. Put the shingles into a set",
     _similarity_with(_run_list, _counted)),
    ("the last shingle of each text is missing. It begins at position len(words) - n",
     _similarity_with(lambda text, n: set(_run_list(text, n)[:-1]), _jaccard)),
    ("runs shorter than n words at the end of a text count too. The last run begins at position "
     "len(words) - n",
     _similarity_with(lambda text, n: {tuple(text.split()[i:i + n])
                                       for i in range(len(text.split()))}, _jaccard)),
    ("shingles do not overlap. One begins at every word, not at every n-th word",
     _similarity_with(lambda text, n: set(_run_list(text, n)[::n]), _jaccard)),
    ("the order of the words in a shingle is lost. Use a tuple, not a set or a sorted list",
     _similarity_with(lambda text, n: {tuple(sorted(run)) for run in _run_list(text, n)},
                      _jaccard)),
    ("capitals are changed. Compare the words as they are",
     lambda a, b, n: _right_similarity(a.lower(), b.lower(), n)),
    ("words are split at single spaces only. text.split() also splits at line ends",
     _similarity_with(lambda text, n: {tuple(text.split(" ")[i:i + n])
                                       for i in range(len(text.split(" ")) - n + 1)}, _jaccard)),
    ("the words of a shingle are joined without a space, so that 'ab c' equals 'a bc'. Use a "
     "tuple, or join them with a space",
     _similarity_with(lambda text, n: {"".join(run) for run in _run_list(text, n)}, _jaccard)),
    ("runs of n + 1 words are compared. A shingle has n words",
     lambda a, b, n: _right_similarity(a, b, n + 1)),
]


def _similarity_properties(reader: Reader):
    def to_tensor(answer):
        return _number(answer)

    try:
        reader(a="", b="", n=1)
    except Wrong as problem:
        if "ZeroDivisionError" not in str(problem):
            raise
        raise Wrong("two texts without shingles have the similarity 0. "
                    "Check whether len(A | B) is 0 before the division") from None
    _compare(reader, _right_similarity, _similarity_cases(), SIMILARITY_MISTAKES, to_tensor,
             lambda t: round(float(t), 4))


# in_validation ------------------------------------------------------------------------------------


def check_in_validation(in_validation) -> Result:
    """Check `in_validation(text, fraction)`.

    The first 8 hexadecimal digits of the sha256 of the text, in utf-8, are a number below 16⁸. The
    result is whether this number is below fraction · 16⁸.
    """
    return check("in_validation", in_validation, _validation_properties,
                 "the same text is always in the same split, and the share is right")


def _share_of_hash(text, digits=8, function=hashlib.sha256):
    return int(function(text.encode("utf-8")).hexdigest()[:digits], 16) / 16 ** digits


def _right_validation(text, fraction):
    return _share_of_hash(text) < fraction


# Texts that begin in the same way.
LICENCE = "The same licence stands at the beginning of each of these files. " * 4


def _validation_cases():
    texts = ["to be", "or not to be", "Die Bäume blühen.", "你好", "🙂", "", " to be",
             *(f"document {i}" for i in range(30)), *(LICENCE + str(i) for i in range(8))]
    cases = [{"text": text, "fraction": fraction} for text in texts for fraction in (0.1, 0.5, 0.9)]
    return [*cases, *({"text": text, "fraction": f} for text in texts[:3] for f in (0.0, 1.0))]


VALIDATION_MISTAKES = [
    ("the answer is the other way round. A *small* hash means validation",
     lambda text, fraction: not _right_validation(text, fraction)),
    ("a large hash means validation. A document belongs to it if its number is *below* the "
     "fraction",
     lambda text, fraction: _share_of_hash(text) > 1 - fraction),
    ("the last 8 digits are used. Use the first 8: hexdigest()[:8]",
     lambda text, fraction: int(hashlib.sha256(text.encode()).hexdigest()[-8:], 16) / 16 ** 8
     < fraction),
    ("the hash is md5. Use hashlib.sha256",
     lambda text, fraction: _share_of_hash(text, function=hashlib.md5) < fraction),
    ("the hash is sha1. Use hashlib.sha256",
     lambda text, fraction: _share_of_hash(text, function=hashlib.sha1) < fraction),
    ("the hash is that of the text without spaces around it. Use the text as it is",
     lambda text, fraction: _right_validation(text.strip(), fraction)),
    ("Python's own hash() gives other numbers each time Python starts, so that documents would "
     "change sides. Use hashlib.sha256",
     lambda text, fraction: hash(text) % 16 ** 8 < fraction * 16 ** 8),
    ("Python's own hash() gives other numbers each time Python starts, so that documents would "
     "change sides. Use hashlib.sha256",
     lambda text, fraction: hash(text) % 100 < fraction * 100),
    ("the number is taken modulo 100. Use the first 8 digits: hexdigest()[:8]",
     lambda text, fraction: int(hashlib.sha256(text.encode("utf-8")).hexdigest(), 16) % 100
     < fraction * 100),
    ("only the beginning of the text counts, so all files with the same licence would be in one "
     "split. Use the whole text",
     lambda text, fraction: _right_validation(text[:100], fraction)),
    ("capitals are changed before the hash. Use the text as it is",
     lambda text, fraction: _right_validation(text.lower(), fraction)),
    ("the length of the text decides. Texts of the same length would be in the same split. Use the "
     "hash",
     lambda text, fraction: len(text) / 100 < fraction),
    ("the fraction is ignored. Compare the number with fraction * 16 ** 8",
     lambda text, fraction: _right_validation(text, 0.1)),
    ("the fraction is ignored. Compare the number with fraction * 16 ** 8",
     lambda text, fraction: _right_validation(text, 0.5)),
    ("no document is in the validation split. Is the number compared with the fraction itself? "
     "Compare it with fraction * 16 ** 8",
     lambda text, fraction: False),
    ("every document is in the validation split. Compare the number with fraction * 16 ** 8",
     lambda text, fraction: True),
]


def _validation_properties(reader: Reader):
    _compare(reader, _right_validation, _validation_cases(), VALIDATION_MISTAKES, _truth,
             lambda t: bool(t))
