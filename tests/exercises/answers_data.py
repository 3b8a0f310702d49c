"""Chapter 10: right answers, and wrong answers with words that the verdict must contain."""

import hashlib
import random

from collecting import Answers

WRONG, RIGHT = Answers(), Answers()


# undo_mojibake ------------------------------------------------------------------------------------

@RIGHT.to("undo_mojibake")
def with_two_errors(text):
    try:
        content = text.encode("cp1252")
    except UnicodeEncodeError:
        return text
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return text


@RIGHT.to("undo_mojibake")
def with_bytes_and_str(text):
    try:
        return str(bytes(text, "cp1252"), "utf8")
    except ValueError:
        return text


@WRONG.to("undo_mojibake", "as it is")
def changes_nothing(text):
    return text


@WRONG.to("undo_mojibake", "two encodings are swapped")
def makes_it_worse(text):
    try:
        return text.encode("utf-8").decode("cp1252")
    except UnicodeError:
        return text


@WRONG.to("undo_mojibake", "latin-1")
def uses_latin_1(text):
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


@WRONG.to("undo_mojibake", "dropped")
def ignores_errors(text):
    return text.encode("cp1252", "ignore").decode("utf-8", "ignore")


@WRONG.to("undo_mojibake", "replaced")
def replaces_errors(text):
    return text.encode("cp1252", errors="replace").decode("utf-8", errors="replace")


@WRONG.to("undo_mojibake", "Do it once")
def repeats(text):
    while True:
        try:
            repaired = text.encode("cp1252").decode("utf-8")
        except UnicodeError:
            return text
        if repaired == text:
            return text
        text = repaired


@WRONG.to("undo_mojibake", "bytes")
def returns_bytes(text):
    return text.encode("cp1252", "ignore")


@WRONG.to("undo_mojibake", "dropped")
def without_try(text):
    return text.encode("cp1252", "ignore").decode("utf-8")


@WRONG.to("undo_mojibake", "UnicodeEncodeError")
def catches_only_decoding(text):
    try:
        return text.encode("cp1252").decode("utf-8")
    except UnicodeDecodeError:
        return text


@WRONG.to("undo_mojibake", "return")
def returns_nothing(text):
    text.encode("cp1252", "ignore")


# similarity ---------------------------------------------------------------------------------------

def runs(text, n):
    words = text.split()
    return {tuple(words[i:i + n]) for i in range(len(words) - n + 1)}


@RIGHT.to("similarity")
def with_joined_words(a, b, n):
    def shingles(text):
        words = text.split()
        return {" ".join(words[i:i + n]) for i in range(len(words) - n + 1)}
    A, B = shingles(a), shingles(b)
    return len(A & B) / max(1, len(A | B))


@RIGHT.to("similarity")
def with_zip(a, b, n):
    def shingles(text):
        words = text.split()
        return set(zip(*(words[i:] for i in range(n)), strict=False))
    A, B = shingles(a), shingles(b)
    shared = len(A.intersection(B))
    return shared / (len(A) + len(B) - shared) if A or B else 0


@WRONG.to("similarity", "count twice")
def dice(a, b, n):
    A, B = runs(a, n), runs(b, n)
    return len(A & B) / max(1, len(A) + len(B))


@WRONG.to("similarity", "first text")
def by_the_first(a, b, n):
    A, B = runs(a, n), runs(b, n)
    return len(A & B) / max(1, len(A))


@WRONG.to("similarity", "shorter")
def by_the_shorter(a, b, n):
    A, B = runs(a, n), runs(b, n)
    return len(A & B) / max(1, min(len(A), len(B)))


@WRONG.to("similarity", "number of shared")
def without_division(a, b, n):
    return len(runs(a, n) & runs(b, n))


@WRONG.to("similarity", "single words")
def ignores_n(a, b, n):
    A, B = set(a.split()), set(b.split())
    return len(A & B) / max(1, len(A | B))


@WRONG.to("similarity", "characters")
def characters(a, b, n):
    A, B = ({t[i:i + n] for i in range(len(t) - n + 1)} for t in (a, b))
    return len(A & B) / max(1, len(A | B))


@WRONG.to("similarity", "last shingle")
def one_too_few(a, b, n):
    A, B = ({tuple(t.split()[i:i + n]) for i in range(len(t.split()) - n)} for t in (a, b))
    return len(A & B) / max(1, len(A | B))


@WRONG.to("similarity", "shorter than n")
def short_runs(a, b, n):
    A, B = ({tuple(t.split()[i:i + n]) for i in range(len(t.split()))} for t in (a, b))
    return len(A & B) / max(1, len(A | B))


@WRONG.to("similarity", "do not overlap")
def chunks(a, b, n):
    A, B = ({tuple(t.split()[i:i + n]) for i in range(0, len(t.split()) - n + 1, n)}
            for t in (a, b))
    return len(A & B) / max(1, len(A | B))


@WRONG.to("similarity", "order of the words")
def sets_of_words(a, b, n):
    A, B = ({tuple(sorted(run)) for run in runs(t, n)} for t in (a, b))
    return len(A & B) / max(1, len(A | B))


@WRONG.to("similarity", "capitals")
def lower_case(a, b, n):
    A, B = runs(a.lower(), n), runs(b.lower(), n)
    return len(A & B) / max(1, len(A | B))


@WRONG.to("similarity", "len(A | B) is 0")
def divides_by_zero(a, b, n):
    A, B = runs(a, n), runs(b, n)
    return len(A & B) / len(A | B)


@WRONG.to("similarity", "set")
def returns_a_set(a, b, n):
    return runs(a, n) & runs(b, n)


# in_validation ------------------------------------------------------------------------------------

@RIGHT.to("in_validation")
def without_a_division(text, fraction):
    digits = hashlib.sha256(bytes(text, "utf-8")).hexdigest()[:8]
    return int(digits, 16) < fraction * 16 ** 8


@RIGHT.to("in_validation")
def with_four_bytes(text, fraction):
    start = hashlib.sha256(text.encode()).digest()[:4]
    return int.from_bytes(start, "big") / 2 ** 32 < fraction


@WRONG.to("in_validation", "other way round")
def training(text, fraction):
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) >= fraction * 16 ** 8


@WRONG.to("in_validation", "large hash")
def the_largest(text, fraction):
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16 ** 8 > 1 - fraction


@WRONG.to("in_validation", "last 8 digits")
def from_the_end(text, fraction):
    return int(hashlib.sha256(text.encode()).hexdigest()[-8:], 16) < fraction * 16 ** 8


@WRONG.to("in_validation", "md5")
def with_md5(text, fraction):
    return int(hashlib.md5(text.encode()).hexdigest()[:8], 16) < fraction * 16 ** 8


@WRONG.to("in_validation", "is right")
def drawn(text, fraction):
    return random.random() < fraction


@WRONG.to("in_validation", "no document")
def without_the_factor(text, fraction):
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) < fraction


@WRONG.to("in_validation", "fraction is ignored")
def always_a_tenth(text, fraction):
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) < 0.1 * 16 ** 8


@WRONG.to("in_validation", "True or False")
def returns_the_number(text, fraction):
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16 ** 8


@WRONG.to("in_validation", "sha1")
def with_sha1(text, fraction):
    return int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) < fraction * 16 ** 8


@WRONG.to("in_validation", "text as it is")
def without_spaces(text, fraction):
    return int(hashlib.sha256(text.strip().encode()).hexdigest()[:8], 16) < fraction * 16 ** 8


@WRONG.to("in_validation", "every document")
def everything(text, fraction):
    return True


@WRONG.to("in_validation", "length")
def by_length(text, fraction):
    return len(text) / 100 < fraction
