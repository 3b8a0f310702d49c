"""Chapter 5's exercises: one merge, which merge, a word's tokens, and text from tokens that hold parts of characters."""

import codecs
import copy
import operator
from itertools import pairwise

import torch

from gptlib.exercises._checking import Reader, Result, check
from gptlib.exercises._comparing import Wrong, close, compare, listed

LONGEST = 64                                                            # an answer becomes a tensor of this length


def _kept(reader: Reader):
    """The reader's function, held to leave the lists that it is given as they were."""
    def call(**given):
        own = copy.deepcopy(given)
        answer = reader(**own)
        for name, value in given.items():
            if own[name] != value:
                raise Wrong(f"it changes its argument `{name}`, which the caller may still need: build a new list instead")
        return answer
    return call


def _ids(answer):
    """A list of token ids as a tensor: their number, the ids, and then -1."""
    if not isinstance(answer, (list, tuple)):
        raise Wrong(f"it gives back a {type(answer).__name__}, and a list of token ids is wanted")
    try:
        ids = [operator.index(i) for i in answer]
    except TypeError:
        other = next(i for i in answer if not hasattr(i, "__index__"))
        raise Wrong(f"there is a {type(other).__name__} among the ids: every token is one whole number") from None
    return torch.tensor([len(ids), *ids[:LONGEST], *[-1] * (LONGEST - len(ids))])


def _as_ids(function):
    return lambda **given: _ids(function(**given))


def _lists_agree(trials, plain):
    for trial in trials:
        if not close(trial.got, trial.expected):
            raise Wrong(f"for {listed(trial.given)} it gives {plain(trial.got)}, and {plain(trial.expected)} is right")


def _plain_ids(t):
    return t[1:][t[1:] >= 0].tolist()


# merge --------------------------------------------------------------------------------------------------------------

def check_merge(merge) -> Result:
    """`merge(ids, pair, new_id)`: a list of ids -> a list in which new_id replaces each occurrence of pair, from left to right."""
    return check("merge", merge, _merge, "each occurrence of the pair, from left to right, has become one token")


def _right_merge(ids, pair, new_id, steps=2):
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i:i + 2]) == tuple(pair):
            merged.append(new_id)
            i += steps
        else:
            merged.append(ids[i])
            i += 1
    return merged


def _merge(reader: Reader):
    given = lambda ids, pair=(1, 2), new_id=9: {"ids": ids, "pair": pair, "new_id": new_id}
    cases = [given([1, 2]), given([3]), given([]), given([1, 2, 3]), given([3, 1, 2]), given([2, 1, 3]), given([1, 2, 1, 2, 1]),
             given([1, 1, 1], (1, 1)), given([1, 1, 1, 1, 2], (1, 1)), given([4, 1, 3, 2]), given([5, 1, 1, 2, 2, 5, 1, 2, 2, 1]),
             given([0, 0, 7, 0, 0, 0], (0, 0), 256), given([9, 1, 2, 2, 9, 1, 2, 2], (9, 2)), given([0, 1, 0, 0, 1], (0, 1), 256),
             given([3, 1, 2, 3], (1, 2), 1), given([11, 2, 1, 12, 1, 2]), given([1, 1, 2, 2], (1, 2), 1)]

    def first_only(ids, pair, new_id):
        at = next((i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair), None)
        return ids if at is None else ids[:at] + [new_id] + ids[at + 2:]

    def from_the_right(ids, pair, new_id):
        return _right_merge(ids[::-1], pair[::-1], new_id)[::-1]

    def again(ids, pair, new_id):
        merged = _right_merge(ids, pair, new_id)
        return merged if merged == ids or len(merged) < 2 else again(merged, pair, new_id)

    def last_lost(ids, pair, new_id):
        merged, i = [], 0
        while i < len(ids) - 1:
            hit = (ids[i], ids[i + 1]) == pair
            merged.append(new_id if hit else ids[i])
            i += 1 + hit
        return merged

    def last_repeated(ids, pair, new_id):
        return last_lost(ids, pair, new_id) + ids[-1:]

    def either_order(ids, pair, new_id):
        merged, i = [], 0
        while i < len(ids):
            hit = tuple(ids[i:i + 2]) in (pair, pair[::-1])
            merged.append(new_id if hit else ids[i])
            i += 1 + hit
        return merged

    def over_text(ids, pair, new_id):
        text = " ".join(map(str, ids)).replace(f"{pair[0]} {pair[1]}", str(new_id))
        return [int(i) for i in text.split()]

    def inserted(ids, pair, new_id):
        return [token for i, token in enumerate(ids) for token in ([new_id] if (token, *ids[i + 1:i + 2]) == pair else []) + [token]]
    mistakes = [(said, _as_ids(mistake)) for said, mistake in (
        ("nothing is merged: the ids come back as they were", lambda ids, pair, new_id: ids),
        ("a token takes part in two pairs: after a merge go on two places further, since both ids are used up",
         lambda ids, pair, new_id: _right_merge(ids, pair, new_id, steps=1)),
        ("three ids are used up by a merge: a pair has two", lambda ids, pair, new_id: _right_merge(ids, pair, new_id, steps=3)),
        ("overlapping pairs are merged from the right: in [1, 1, 1] the first two ones are the pair (1, 1)", from_the_right),
        ("only the first occurrence is merged: go on to the end", first_only),
        ("the pair is merged in either order: (1, 2) is not (2, 1)", either_order),
        ("the pair is looked for in the wrong order: pair[0] comes first",
         lambda ids, pair, new_id: _right_merge(ids, pair[::-1], new_id)),
        ("the last token is lost: it has no neighbour on its right, and stays what it is", last_lost),
        ("the last token comes twice, or again although it was merged: after a merge at the end nothing is left to add", last_repeated),
        ("the new token is merged again in the same call: one call looks once at each place, from left to right", again),
        ("the pair is looked for in a text of digits, where 1 2 is also found in 11 2: compare ids", over_text),
        ("single ids are replaced: the new token stands for the two together",
         lambda ids, pair, new_id: [new_id if i in pair else i for i in ids]),
        ("the pair disappears: the new token should stand in its place",
         lambda ids, pair, new_id: [i for i in _right_merge(ids, pair, -9) if i != -9]),
        ("the new token is added, and the pair stays: it should replace both", inserted),
        ("each half of the pair becomes the new token: the two together become one",
         lambda ids, pair, new_id: [j for i in _right_merge(ids, pair, -9) for j in ([new_id] * 2 if i == -9 else [i])]),
    )]
    trials = compare(_kept(reader), _as_ids(_right_merge), cases, mistakes, _ids)
    _lists_agree(trials, _plain_ids)


# best_pair ----------------------------------------------------------------------------------------------------------

def check_best_pair(best_pair) -> Result:
    """`best_pair(words)`: {tuple of ids: how often that word occurs} -> the commonest pair of neighbours; of equals, the smallest."""
    return check("best_pair", best_pair, _best_pair, "the pair that the whole text holds most often, and of equals the smallest")


def _pair_counts(words, weigh=lambda count: count, pairs=pairwise):
    counts = {}
    for ids, count in words.items():
        for pair in pairs(ids):
            counts[pair] = counts.get(pair, 0) + weigh(count)
    return counts


def _right_best(words):
    counts = _pair_counts(words)
    return min(counts, key=lambda pair: (-counts[pair], pair))


def _pair(answer):
    if not isinstance(answer, (list, tuple)):
        raise Wrong(f"it gives back a {type(answer).__name__}, and a pair of ids is wanted")
    if len(answer) == 2 and isinstance(answer[0], tuple) and not isinstance(answer[1], tuple):
        raise Wrong("the count comes with the pair: give back the pair alone")
    if len(answer) == 1 and isinstance(answer[0], tuple):
        raise Wrong("the pair comes in a list of one (`most_common(1)` gives such a list, each pair with its count): give back the "
                    "pair alone")
    if len(answer) != 2:
        raise Wrong(f"it gives back a {type(answer).__name__} of {len(answer)}, and a pair of ids is wanted")
    return _ids(answer)[1:3]


def _best_pair(reader: Reader):
    cases = [{"words": words} for words in (
        {(1, 2): 1}, {(1, 2): 1, (3, 4, 5): 2, (4, 5): 1}, {(1, 2): 3, (3, 4, 3, 4): 1}, {(7, 3): 2, (4, 1): 2},
        {(4, 1): 2, (4, 0): 2, (7, 3): 2},
        {(1, 9): 2, (2, 3): 2}, {(5, 6): 2, (6, 5): 3, (1, 8): 4}, {(2, 2, 2): 2, (3, 4): 3}, {(1, 2): 4, (3, 1): 4, (2,): 9},
        {(8, 2): 1, (2, 8): 1, (9, 9): 2, (3, 2): 2}, {(6, 5, 6, 5, 6): 1, (1, 2): 1}, {(3, 1, 2): 2, (5, 5): 5, (1, 2): 4},
        {(9,): 50, (1, 2, 1, 2, 1, 2): 1, (4, 5): 2, (6, 4, 5): 2}, {(3, 9): 5, (3, 8): 5, (2, 200): 4})]
    best = lambda key, **how: lambda words: (lambda counts: min(counts, key=lambda pair: key(counts, pair)))(_pair_counts(words, **how))
    right = lambda counts, pair: (-counts[pair], pair)

    def apart(ids):
        i = 0
        while i < len(ids) - 1:
            yield ids[i:i + 2]
            i += 1 + (ids[i:i + 2] == ids[i + 1:i + 3])

    def across(words):
        ids = tuple(i for word, count in words.items() for i in word * count)
        return _right_best({ids: 1})

    def sorted_pairs(words):
        counts = _pair_counts(words, pairs=lambda ids: (tuple(sorted(pair)) for pair in pairwise(ids)))
        return min(counts, key=lambda pair: (-counts[pair], pair))
    mistakes = [(said, lambda mistake=mistake, **given: _pair(mistake(**given))) for said, mistake in (
        ("each word is counted once: a word that occurs 3 times brings each of its pairs 3 times", best(right, weigh=lambda count: 1)),
        ("each word is counted once, and of equals the first found wins: weigh by the word's count, and take the smallest",
         best(lambda counts, pair: -counts[pair], weigh=lambda count: 1)),
        ("of equally common pairs the first one found wins, so the order of the words decides: take the smallest pair",
         best(lambda counts, pair: -counts[pair])),
        ("of equally common pairs the last one found wins: take the smallest pair",
         lambda words: (lambda counts: max(reversed(counts), key=counts.get))(_pair_counts(words))),
        ("of equally common pairs the largest wins: take the smallest (max of (count, pair) picks the largest; min of (-count, pair) "
         "does not)", best(lambda counts, pair: (-counts[pair], -pair[0], -pair[1]))),
        ("of equally common pairs the one with the smaller second id wins: compare the first ids first",
         best(lambda counts, pair: (-counts[pair], pair[::-1]))),
        ("of equally common pairs the one with the smaller sum wins: compare the first ids first, then the second",
         best(lambda counts, pair: (-counts[pair], sum(pair)))),
        ("it takes the rarest pair: the commonest is wanted", best(lambda counts, pair: (counts[pair], pair))),
        ("pairs reach from one word into the next: the words are apart, that is what splitting is for", across),
        ("a pair counts once a word, though it may stand there twice: count each place",
         best(right, pairs=lambda ids: set(pairwise(ids)))),
        ("in (2, 2, 2) the pair (2, 2) is counted once: count each place where two neighbours are the pair, overlapping ones too",
         best(right, pairs=apart)),
        ("(5, 6) and (6, 5) are counted as one: the order matters", sorted_pairs),
        ("only every other place is looked at: pairs overlap, each id but the last begins one",
         best(right, pairs=lambda ids: zip(ids[::2], ids[1::2], strict=False))),
        ("it counts single ids, not pairs", lambda words: (lambda counts: min(counts, key=lambda i: (-counts[i], i)) * 2)(
            _pair_counts(words, pairs=lambda ids: [(i,) for i in ids]))),
        ("the pairs of the commonest word win: add up over all words", lambda words: _right_best(
            dict([max((item for item in words.items() if len(item[0]) > 1), key=lambda item: item[1])]))),
        ("the smallest pair of all is taken: the count decides first", lambda words: min(_pair_counts(words))),
    )]
    trials = compare(_kept(reader), lambda words: _pair(_right_best(words)), cases, mistakes, _pair)
    _lists_agree(trials, lambda t: tuple(t.tolist()))


# encode_word --------------------------------------------------------------------------------------------------------

def check_encode_word(encode_word) -> Result:
    """`encode_word(ids, merges)`: a word's bytes, {pair: new id} in the order learned -> its tokens: the merge learned first goes first."""
    return check("encode_word", encode_word, _encode_word, "the merges are replayed in the order in which they were learned")


def _right_encode(ids, merges):
    for pair, new_id in sorted(merges.items(), key=lambda merge: merge[1]):
        ids = _right_merge(ids, pair, new_id)
    return ids


def _pieces(merges):
    """What each learned token consists of."""
    of = lambda i: next((of(a) + of(b) for (a, b), new_id in merges.items() if new_id == i), (i,))
    return {new_id: of(new_id) for new_id in merges.values()}


def _encode_word(reader: Reader):
    learned = {(2, 3): 10, (1, 2): 11, (10, 4): 12, (3, 4): 13, (12, 12): 14, (5, 5): 15, (15, 5): 16, (11, 13): 17}
    some = lambda n: dict(list(learned.items())[:n])
    cases = [{"ids": ids, "merges": merges} for ids, merges in (
        ([2, 3], some(1)), ([1, 2], some(1)), ([1, 2, 3], some(2)), ([], some(2)), ([7], some(8)), ([2, 3, 2, 3], some(1)),
        ([2, 3, 4], some(3)), ([2, 3, 4], some(4)), ([5, 5, 5], some(8)), ([1, 2, 3, 4], some(8)), ([5, 5, 5, 5, 5], some(8)),
        ([2, 3, 4, 2, 3, 4], some(8)),
        ([1, 2, 4, 3, 4], some(8)),
        ([1, 2, 3], {(2, 3): 10, (1, 2): 11, (1, 10): 12}), ([1, 2, 9, 1, 2, 3, 4, 5, 5], some(8)),
        ([3, 4, 1, 2, 3, 4, 3, 4], some(8)), ([1, 2, 3], {}),
        ([1, 2, 3, 4], {(1, 2): 20, (3, 4): 21, (20, 21): 22, (2, 3): 23}),
        ([1, 2, 3, 2, 3, 4], {(2, 3): 10, (1, 10): 11, (11, 10): 12, (12, 4): 13}),
        ([5, 5, 1, 2, 3, 4], {(1, 2): 20, (5, 5): 21, (20, 3): 22, (22, 4): 23}))]

    def by_place(ids, merges):                                          # the leftmost pair that any merge knows
        while True:
            at = next((i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) in merges), None)
            if at is None:
                return ids
            ids = ids[:at] + [merges[ids[at], ids[at + 1]]] + ids[at + 2:]

    def one_sweep(ids, merges):                                         # from left to right, once
        done = []
        for i in ids:
            done.append(i)
            if tuple(done[-2:]) in merges:
                done[-2:] = [merges[tuple(done[-2:])]]
        return done

    def single_pass(ids, merges):
        done, i = [], 0
        while i < len(ids):
            hit = tuple(ids[i:i + 2]) in merges
            done.append(merges[tuple(ids[i:i + 2])] if hit else ids[i])
            i += 1 + hit
        return done

    def longest(ids, merges):
        spelled, done, i = {piece: new_id for new_id, piece in _pieces(merges).items()}, [], 0
        while i < len(ids):
            piece = max((p for p in spelled if tuple(ids[i:i + len(p)]) == p), key=len, default=None)
            done.append(ids[i] if piece is None else spelled[piece])
            i += 1 if piece is None else len(piece)
        return done

    def one_at_a_time(ids, merges):
        known = [pair for pair in pairwise(ids) if pair in merges]
        return _right_merge(ids, min(known, key=merges.get), merges[min(known, key=merges.get)]) if known else ids

    def latest_first(ids, merges):
        while known := [pair for pair in pairwise(ids) if pair in merges]:
            pair = max(known, key=merges.get)
            ids = _right_merge(ids, pair, merges[pair])
        return ids

    def backwards(ids, merges):
        for pair, new_id in sorted(merges.items(), key=lambda merge: -merge[1]):
            ids = _right_merge(ids, pair, new_id)
        return ids

    def commonest(ids, merges):
        while known := [pair for pair in pairwise(ids) if pair in merges]:
            pair = max(known, key=lambda p: (known.count(p), -merges[p]))
            ids = _right_merge(ids, pair, merges[pair])
        return ids

    def smallest_ids(ids, merges):
        while known := [pair for pair in pairwise(ids) if pair in merges]:
            ids = _right_merge(ids, min(known), merges[min(known)])
        return ids

    def first_place_only(ids, merges):
        for pair, new_id in merges.items():
            at = next((i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair), None)
            ids = ids if at is None else ids[:at] + [new_id] + ids[at + 2:]
        return ids
    order = "the merge learned first (the smallest new id) goes first, wherever it stands"
    mistakes = [(said, _as_ids(mistake)) for said, mistake in (
        ("nothing is merged", lambda ids, merges: ids),
        (f"the longest known piece is taken from the left, as in a dictionary: {order}", longest),
        (f"the leftmost known pair is merged first: {order}", by_place),
        (f"it goes through the word once from left to right, and merges whatever fits: {order}", one_sweep),
        (f"it goes through the word once, so tokens never grow beyond two bytes: go on until nothing fits, and {order}", single_pass),
        ("it stops after one merge: go on until no pair fits", one_at_a_time),
        (f"the merge learned last goes first: {order}", latest_first),
        (f"the merges are replayed backwards, the last one first: {order}", backwards),
        (f"the commonest pair of this word goes first: that is for training; in encoding {order}", commonest),
        (f"the pair with the smallest ids goes first: {order}", smallest_ids),
        ("each merge is applied at one place only: replace every occurrence before the next merge", first_place_only),
        ("the result has to be tokens: these are the bytes again", lambda ids, merges: [b for i in _right_encode(ids, merges)
                                                                                    for b in _pieces(merges).get(i, (i,))]),
    )]
    trials = compare(_kept(reader), _as_ids(_right_encode), cases, mistakes, _ids)
    _lists_agree(trials, _plain_ids)


# stream -------------------------------------------------------------------------------------------------------------

def check_stream(stream) -> Result:
    """`stream(tokens)`: the bytes of each token -> the text that each token completes, "" where it completes no character."""
    return check("stream", stream, _stream, "every character appears with the token that completes it, and none too early or too late")


def _right_stream(tokens):
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(token) for token in tokens]


def _texts(answer):
    """A list of texts as a tensor: how many, then the code points of each, ended by -1."""
    if not isinstance(answer, (list, tuple)):
        raise Wrong(f"it gives back a {type(answer).__name__}, and a list of texts is wanted, one for each token")
    for text in answer:
        if not isinstance(text, str):
            raise Wrong(f"there is a {type(text).__name__} in the list, and texts (str) are wanted, one for each token")
    codes = [code for text in answer for code in (*map(ord, text), -1)]
    return torch.tensor([len(answer), *codes[:LONGEST], *[-2] * (LONGEST - len(codes))])


def _plain_texts(t):
    texts, text = [], ""
    for code in t[1:].tolist():
        if code == -1:
            texts, text = [*texts, text], ""
        elif code >= 0:
            text += chr(code)
    return texts


def _stream(reader: Reader):
    e, euro, wave = "é".encode(), "€".encode(), "👋".encode()
    cases = [{"tokens": tokens} for tokens in (
        [b"a"], [b"to", b" be"], [e[:1], e[1:]], [b"caf" + e[:1], e[1:] + b"!"], [euro[:1], euro[1:2], euro[2:]],
        [euro[:2], euro[2:] + b"1"],
        [wave[:2], wave[2:], b"!"], [b"hi " + wave[:1], wave[1:3], wave[3:]], ["é€".encode()[:3], "é€".encode()[3:], b"."],
        [e[:1], e[1:] + e[:1], e[1:]], ["\ufffd".encode(), b"x"], [b"ok", "\ufffd".encode()], [b"", b"a", b""],
        ["\ufffd".encode()[:1], "\ufffd".encode()[1:], b"z"], ["日本".encode()[:4], "日本".encode()[4:5], "日本".encode()[5:]])]

    def buffered(tokens, give):
        kept, texts = b"", []
        for token in tokens:
            text, kept = give(kept + token)
            texts.append(text)
        return texts

    def all_or_nothing(data):
        try:
            return data.decode(), b""
        except UnicodeDecodeError:
            return "", data

    def until_the_error(data):                                          # and forgets the rest
        try:
            return data.decode(), b""
        except UnicodeDecodeError as error:
            return data[:error.start].decode(), b""

    def mark_means_half(data):
        return ("", data) if data.decode("utf-8", "replace").endswith("\ufffd") else (data.decode(), b"")

    def mark_stripped(data):
        text = data.decode("utf-8", "replace").rstrip("\ufffd")
        return text, data[len(text.encode()):]

    def one_late(tokens):
        right = _right_stream(tokens)
        return ["", *right[:-1]]

    def so_far(tokens):
        decoder, text = codecs.getincrementaldecoder("utf-8")(), ""
        return [text := text + decoder.decode(token) for token in tokens]

    at_end = lambda tokens: [""] * (len(tokens) - 1) + [b"".join(tokens).decode()]
    mark = "a � that really stands in the text is taken for half a character: look at the bytes, or let `decode` say what is incomplete"
    mistakes = [(said, lambda mistake=mistake, **given: _texts(mistake(**given))) for said, mistake in (
        ("half a character became �: keep its bytes until the rest has come, and decode them together",
         lambda tokens: [token.decode("utf-8", "replace") for token in tokens]),
        ("characters cut between two tokens are lost: errors=\"ignore\" drops their bytes; keep them until the rest has come",
         lambda tokens: [token.decode("utf-8", "ignore") for token in tokens]),
        ("bytes of a cut character are forgotten: carry what is left over into the next token",
         lambda tokens: [until_the_error(token)[0] for token in tokens]),
        ("each byte became a character of its own: the bytes are utf-8, where one character may take up to four",
         lambda tokens: [token.decode("latin-1") for token in tokens]),
        ("everything comes at the end: give each character with the token that completes it", at_end),
        ("each text comes one token too late", one_late),
        ("each text repeats all that came before: give only what is new", so_far),
        ("whole characters wait because half of another one follows them: give those, and keep back the half alone",
         lambda tokens: buffered(tokens, all_or_nothing)),
        ("the bytes of a cut character are read again as a text of their own: after the error, carry on with data[error.start:]",
         lambda tokens: buffered(tokens, until_the_error)),
        (mark, lambda tokens: buffered(tokens, mark_stripped)),
        (mark + "; and whole characters wait for the half that follows them", lambda tokens: buffered(tokens, mark_means_half)),
        ("tokens that complete no character are left out: they give \"\", so that each token has its text",
         lambda tokens: [text for text in _right_stream(tokens) if text]),
        ("there is one text in all: give one for each token", lambda tokens: [b"".join(tokens).decode()]),
        ("there is one text for each character: give one for each token", lambda tokens: list(b"".join(tokens).decode())),
        ("these are bytes written out (b'…'): decode them", lambda tokens: [str(token) for token in tokens]),
    )]
    trials = compare(_kept(reader), lambda tokens: _texts(_right_stream(tokens)), cases, mistakes, _texts)
    for trial in trials:
        if trial.got[0] != trial.expected[0]:
            raise Wrong(f"there are {int(trial.got[0])} texts for {int(trial.expected[0])} tokens: one for each, "
                        "\"\" where nothing is complete")
    _lists_agree(trials, _plain_texts)
