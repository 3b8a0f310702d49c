"""Chapter 5's exercises: merge a pair, find the best pair, encode a word, and decode a stream."""

import codecs
import copy
import operator
import random
from collections.abc import Callable
from itertools import pairwise

import torch

from gptlib.classroom.exercises._checking import Reader, Result, check
from gptlib.classroom.exercises._comparing import Wrong, close, compare, listed

# Answers are compared as tensors of this length.
MAX_LENGTH = 64


def _without_side_effects(reader: Reader) -> Callable:
    """Return a function that calls the student's, and raises `Wrong` if it changes an argument."""
    def call(**given):
        arguments = copy.deepcopy(given)
        answer = reader(**arguments)
        for name, value in given.items():
            if arguments[name] != value:
                raise Wrong(f"the function changes its argument `{name}`, which the caller may "
                            "still need. Build a new list")
        return answer
    return call


def _ids(answer):
    """Return a list of token ids as a tensor: the number of ids, the ids, and -1 at the end."""
    if not isinstance(answer, (list, tuple)):
        raise Wrong(f"the function returns a value of type {type(answer).__name__}, "
                    "but it should return a list of token ids")
    try:
        ids = [operator.index(i) for i in answer]
    except TypeError:
        other = next(i for i in answer if not hasattr(i, "__index__"))
        raise Wrong(f"the list contains an element of type {type(other).__name__}. "
                    "Every token should be one integer, its id") from None
    return torch.tensor([len(ids), *ids[:MAX_LENGTH], *[-1] * (MAX_LENGTH - len(ids))])


def _ids_as_list(tensor):
    return tensor[1:][tensor[1:] >= 0].tolist()


def _returning(to_tensor: Callable, function: Callable) -> Callable:
    """Return a function that gives the result of `function` as a tensor."""
    return lambda **given: to_tensor(function(**given))


def _raise_first_difference(trials, to_list: Callable) -> None:
    """Raise `Wrong` with the first trial whose answer is not the right one."""
    for trial in trials:
        if not close(trial.got, trial.expected):
            raise Wrong(f"for {listed(trial.given)} the function returns {to_list(trial.got)}, "
                        f"but {to_list(trial.expected)} is right")


# merge --------------------------------------------------------------------------------------------


def check_merge(merge) -> Result:
    """Check `merge(ids, pair, new_id)`.

    It returns a list in which new_id replaces each occurrence of the pair, from left to right.
    """
    return check("merge", merge, _merge_properties,
                 "each occurrence of the pair, from left to right, became one token")


def _right_merge(ids, pair, new_id, step=2):
    """Merge from left to right. After a merge, go on `step` positions to the right."""
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i:i + 2]) == tuple(pair):
            merged.append(new_id)
            i += step
        else:
            merged.append(ids[i])
            i += 1
    return merged


def _merge_cases():
    def case(ids, pair=(1, 2), new_id=9):
        return {"ids": ids, "pair": pair, "new_id": new_id}

    return [
        case([1, 2]),
        case([3]),
        case([]),
        case([1, 2, 3]),
        case([3, 1, 2]),
        case([2, 1, 3]),
        case([1, 2, 1, 2, 1]),
        case([1, 1, 1], (1, 1)),
        case([1, 1, 1, 1, 2], (1, 1)),
        case([4, 1, 3, 2]),
        case([5, 1, 1, 2, 2, 5, 1, 2, 2, 1]),
        case([0, 0, 7, 0, 0, 0], (0, 0), 256),
        case([9, 1, 2, 2, 9, 1, 2, 2], (9, 2)),
        case([0, 1, 0, 0, 1], (0, 1), 256),
        case([3, 1, 2, 3], (1, 2), 1),
        case([11, 2, 1, 12, 1, 2]),
        case([1, 1, 2, 2], (1, 2), 1),
        # Long lists with many occurrences of the pair.
        *(case(random.Random(seed).choices((1, 2, 3), k=40), (1, 2)) for seed in range(4)),
        *(case(random.Random(seed).choices((1, 2), k=30), (2, 2)) for seed in range(4)),
    ]


def _first_position(ids, pair):
    """Return the first position at which the pair begins, or None."""
    return next((i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair), None)


def _merge_first_only(ids, pair, new_id):
    i = _first_position(ids, pair)
    return ids if i is None else ids[:i] + [new_id] + ids[i + 2:]


def _merge_from_the_right(ids, pair, new_id):
    return _right_merge(ids[::-1], pair[::-1], new_id)[::-1]


def _merge_at_even_positions(ids, pair, new_id):
    merged = []
    for i in range(0, len(ids), 2):
        two = ids[i:i + 2]
        merged += [new_id] if tuple(two) == pair else two
    return merged


def _merge_the_result_again(ids, pair, new_id):
    merged = _right_merge(ids, pair, new_id)
    if merged == ids or len(merged) < 2:
        return merged
    return _merge_the_result_again(merged, pair, new_id)


def _merge_without_the_last(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids) - 1:
        found = (ids[i], ids[i + 1]) == pair
        merged.append(new_id if found else ids[i])
        i += 1 + found
    return merged


def _merge_in_either_order(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids):
        found = tuple(ids[i:i + 2]) in (pair, pair[::-1])
        merged.append(new_id if found else ids[i])
        i += 1 + found
    return merged


def _add_at_the_end(ids, pair, new_id):
    rest = _replace_merges_by()(ids, pair, new_id)
    return rest + [new_id] * ((len(ids) - len(rest)) // 2)


def _merge_if(found):
    """Return a merge of every two neighbours a, b with `found(a, b, pair)`."""
    def merge(ids, pair, new_id):
        merged, i = [], 0
        while i < len(ids):
            merge_here = i + 1 < len(ids) and found(ids[i], ids[i + 1], pair)
            merged.append(new_id if merge_here else ids[i])
            i += 1 + merge_here
        return merged
    return merge


_merge_any_two = _merge_if(lambda a, b, pair: a in pair and b in pair)
_merge_by_the_first_id = _merge_if(lambda a, b, pair: a == pair[0])
_merge_by_the_second_id = _merge_if(lambda a, b, pair: b == pair[1])


def _merge_in_text(ids, pair, new_id):
    text = " ".join(map(str, ids)).replace(f"{pair[0]} {pair[1]}", str(new_id))
    return [int(i) for i in text.split()]


def _insert_before_the_pair(ids, pair, new_id):
    inserted = []
    for i, token in enumerate(ids):
        if tuple(ids[i:i + 2]) == pair:
            inserted.append(new_id)
        inserted.append(token)
    return inserted


def _replace_merges_by(*tokens):
    """Return a merge whose new token is replaced by these tokens. None stands for new_id."""
    def merge(ids, pair, new_id):
        merged = []
        for i in _right_merge(ids, pair, -9):
            merged += [new_id if token is None else token for token in tokens] if i == -9 else [i]
        return merged
    return merge


MERGE_MISTAKES = [
    ("nothing is merged, and the result equals the input. Is a list compared with a tuple? They "
     "are never equal: compare `tuple(ids[i:i + 2])` with `pair`",
     lambda ids, pair, new_id: ids),
    ("one token takes part in two pairs. A merge uses up both ids, so go on two positions to the "
     "right after it",
     lambda ids, pair, new_id: _right_merge(ids, pair, new_id, step=1)),
    ("a merge uses up three ids, but a pair has two. Go on two positions to the right after it",
     lambda ids, pair, new_id: _right_merge(ids, pair, new_id, step=3)),
    ("pairs that overlap are merged from the right. Go from left to right: in [1, 1, 1] the first "
     "two ids are the pair (1, 1)",
     _merge_from_the_right),
    ("only the first occurrence of the pair is merged. Go on to the end of the list",
     _merge_first_only),
    ("the pair is found at even positions only. A pair may begin at any position, so move on by "
     "one where it does not",
     _merge_at_even_positions),
    ("the pair is merged in either order. The pair (1, 2) is not the pair (2, 1)",
     _merge_in_either_order),
    ("the pair is searched for in the wrong order. Its first id, pair[0], comes first",
     lambda ids, pair, new_id: _right_merge(ids, pair[::-1], new_id)),
    ("the last token is lost. It has no right neighbour, so copy it as it is",
     _merge_without_the_last),
    ("the last token comes twice, or it comes although it was merged. After a merge at the end of "
     "the list there is no token left to add",
     lambda ids, pair, new_id: _merge_without_the_last(ids, pair, new_id) + ids[-1:]),
    ("the new token is merged again in the same call. One call looks at each position of the input "
     "once, from left to right",
     _merge_the_result_again),
    ("the pair is searched for in a text of digits, where 1 2 is also found in 11 2. Compare ids, "
     "not text",
     _merge_in_text),
    ("single ids are replaced. The new token should replace the two ids of the pair together",
     lambda ids, pair, new_id: [new_id if i in pair else i for i in ids]),
    ("the pair disappears. The new token should take its place",
     _replace_merges_by()),
    ("the new token is added, but the pair stays. The new token should replace the pair",
     _insert_before_the_pair),
    ("each half of the pair becomes a new token. Both halves together should become one token",
     _replace_merges_by(None, None)),
    ("the first id of the pair stays before the new token. The new token should replace both ids",
     lambda ids, pair, new_id: _replace_merges_by(pair[0], None)(ids, pair, new_id)),
    ("the second id of the pair stays after the new token. The new token should replace both ids",
     lambda ids, pair, new_id: _replace_merges_by(None, pair[1])(ids, pair, new_id)),
    ("the new tokens stand at the end of the list. Each should stand where its pair stood",
     _add_at_the_end),
    ("only the last occurrence of the pair is merged. Go through the whole list",
     lambda ids, pair, new_id: _merge_first_only(ids[::-1], pair[::-1], new_id)[::-1]),
    ("any two ids of the pair are merged, also (1, 1) for the pair (1, 2). The first should be "
     "pair[0], and the second pair[1]",
     _merge_any_two),
    ("the first id of the pair alone decides. The id after it should be pair[1]",
     _merge_by_the_first_id),
    ("the second id of the pair alone decides. The id before it should be pair[0]",
     _merge_by_the_second_id),
    ("an id that occurs twice appears once in the result. A list keeps every occurrence",
     lambda ids, pair, new_id: list(dict.fromkeys(_right_merge(ids, pair, new_id)))),
    ("the result is sorted. Keep the order of the text",
     lambda ids, pair, new_id: sorted(_right_merge(ids, pair, new_id))),
]


def _merge_properties(reader: Reader):
    mistakes = [(sentence, _returning(_ids, mistake)) for sentence, mistake in MERGE_MISTAKES]
    trials = compare(_without_side_effects(reader), _returning(_ids, _right_merge), _merge_cases(),
                     mistakes, _ids)
    _raise_first_difference(trials, _ids_as_list)


# best_pair ----------------------------------------------------------------------------------------


def check_best_pair(best_pair) -> Result:
    """Check `best_pair(words)`.

    The argument maps each word, a tuple of ids, to the number of its occurrences. The result is the
    most frequent pair of neighbours. If several are equally frequent, it is the smallest of them.
    """
    return check("best_pair", best_pair, _best_pair_properties,
                 "it is the most frequent pair of the whole text, and the smallest of equals")


def _pair_counts(words, weight=lambda count: count, pairs=pairwise):
    """Count the pairs. Each occurrence in a word adds the `weight` of that word's count."""
    counts = {}
    for ids, count in words.items():
        for pair in pairs(ids):
            counts[pair] = counts.get(pair, 0) + weight(count)
    return counts


def _best(key, **options):
    """Return a function that finds the pair with the smallest `key(counts, pair)`."""
    def best_pair(words):
        counts = _pair_counts(words, **options)
        return min(counts, key=lambda pair: key(counts, pair))
    return best_pair


def _by_count_and_pair(counts, pair):
    return -counts[pair], pair


_right_best_pair = _best(_by_count_and_pair)


def _pair(answer):
    """Return a pair of ids as a tensor."""
    if not isinstance(answer, (list, tuple)):
        raise Wrong(f"the function returns a value of type {type(answer).__name__}, "
                    "but it should return a pair of ids")
    if len(answer) == 2 and isinstance(answer[0], tuple) and not isinstance(answer[1], tuple):
        raise Wrong("the count comes with the pair. Return the pair alone")
    if len(answer) == 1 and isinstance(answer[0], tuple):
        raise Wrong("the pair comes in a list of one. `most_common(1)` returns such a list, in "
                    "which the pair stands with its count. Return the pair alone")
    if len(answer) != 2:
        raise Wrong(f"the function returns a {type(answer).__name__} of length {len(answer)}, "
                    "but it should return a pair of ids")
    return _ids(answer)[1:3]


BEST_PAIR_CASES = [
    {"words": words} for words in (
        {(1, 2): 1},
        {(1, 2): 1, (3, 4, 5): 2, (4, 5): 1},
        {(1, 2): 3, (3, 4, 3, 4): 1},
        {(7, 3): 2, (4, 1): 2},
        {(4, 1): 2, (4, 0): 2, (7, 3): 2},
        {(1, 9): 2, (2, 3): 2},
        {(5, 6): 2, (6, 5): 3, (1, 8): 4},
        {(2, 2, 2): 2, (3, 4): 3},
        {(1, 2): 4, (3, 1): 4, (2,): 9},
        {(8, 2): 1, (2, 8): 1, (9, 9): 2, (3, 2): 2},
        {(6, 5, 6, 5, 6): 1, (1, 2): 1},
        {(3, 1, 2): 2, (5, 5): 5, (1, 2): 4},
        {(9,): 50, (1, 2, 1, 2, 1, 2): 1, (4, 5): 2, (6, 4, 5): 2},
        {(3, 9): 5, (3, 8): 5, (2, 200): 4},
        {(10, 2): 3, (9, 1): 3},
        {(5, 6, 7): 2, (8, 6, 7): 2, (5, 6): 1},
    )
]


def _random_words(seed):
    """Return six random words of ids from 1 to 4, with counts from 1 to 3."""
    generator = random.Random(seed)
    words = [tuple(generator.choices(range(1, 5), k=generator.randint(2, 7))) for _ in range(6)]
    return {ids: generator.randint(1, 3) for ids in words}


# Enough different inputs to tell similar mistakes apart.
BEST_PAIR_CASES += [{"words": _random_words(seed)} for seed in range(12)]


def _pairs_that_do_not_overlap(ids):
    """Yield the pairs of a word, but of the pairs in (2, 2, 2) only the first."""
    i = 0
    while i < len(ids) - 1:
        yield ids[i:i + 2]
        i += 1 + (ids[i:i + 2] == ids[i + 1:i + 3])


def _sorted_pairs(ids):
    return (tuple(sorted(pair)) for pair in pairwise(ids))


def _pairs_at_even_positions(ids):
    return zip(ids[::2], ids[1::2], strict=False)


def _best_in_joined_words(words):
    ids = tuple(i for word, count in words.items() for i in word * count)
    return _right_best_pair({ids: 1})


def _best_with_overwritten_counts(words):
    counts = {pair: count for ids, count in words.items() for pair in pairwise(ids)}
    return min(counts, key=lambda pair: (-counts[pair], pair))


def _best_with_the_largest_count(words):
    counts = {}
    for ids, count in words.items():
        for pair in pairwise(ids):
            counts[pair] = max(counts.get(pair, 0), count)
    return min(counts, key=lambda pair: (-counts[pair], pair))


def _ranked_pairs(words):
    counts = _pair_counts(words)
    return sorted(counts, key=lambda pair: (-counts[pair], pair))


def _last_of_the_best(words):
    counts = _pair_counts(words)
    return max(reversed(counts), key=counts.get)


def _best_single_id_twice(words):
    counts = _pair_counts(words, pairs=lambda ids: [(i,) for i in ids])
    return min(counts, key=lambda i: (-counts[i], i)) * 2


def _best_in_the_most_frequent_word(words):
    with_pairs = [word for word in words if len(word) > 1]
    return _right_best_pair({max(with_pairs, key=words.get): 1})


BEST_PAIR_MISTAKES = [
    ("each word is counted once. A word that occurs 3 times adds 3 to the count of each of its "
     "pairs",
     _best(_by_count_and_pair, weight=lambda count: 1)),
    ("each word is counted once, and of equally frequent pairs the first one found wins. Add the "
     "word's count, and take the smallest pair",
     _best(lambda counts, pair: -counts[pair], weight=lambda count: 1)),
    ("the count of a pair is overwritten by the next word that contains the pair. Add up the "
     "counts of all words: `counts[pair] += count`",
     _best_with_overwritten_counts),
    ("of equally frequent pairs the first one found wins, so the result depends on the order of "
     "the words. Take the smallest pair",
     _best(lambda counts, pair: -counts[pair])),
    ("of equally frequent pairs the last one found wins. Take the smallest pair",
     _last_of_the_best),
    ("of equally frequent pairs the largest wins. Take the smallest pair: max of (count, pair) "
     "finds the largest, but min of (-count, pair) finds the smallest",
     _best(lambda counts, pair: (-counts[pair], -pair[0], -pair[1]))),
    ("of equally frequent pairs with the same first id, the first one found wins. Compare the "
     "second ids too: the key should contain the whole pair",
     _best(lambda counts, pair: (-counts[pair], pair[0]))),
    ("of equally frequent pairs the one with the smaller second id wins. Compare the first ids "
     "first",
     _best(lambda counts, pair: (-counts[pair], pair[::-1]))),
    ("of equally frequent pairs the one with the smaller sum wins. Compare the first ids first, "
     "then the second ids",
     _best(lambda counts, pair: (-counts[pair], sum(pair)))),
    ("equally frequent pairs are compared as text, where \"(10, 2)\" comes before \"(9, 1)\". "
     "Compare the tuples themselves",
     _best(lambda counts, pair: (-counts[pair], str(pair)))),
    ("the result is the rarest pair. It should be the most frequent pair",
     _best(lambda counts, pair: (counts[pair], pair))),
    ("some pairs reach from one word into the next. Count the pairs inside each word only: the "
     "text was split so that no token crosses the border of a word",
     _best_in_joined_words),
    ("a pair is counted once in a word, although it may occur twice in that word. Count each "
     "position",
     _best(_by_count_and_pair, pairs=lambda ids: set(pairwise(ids)))),
    ("in (2, 2, 2) the pair (2, 2) is counted once. Count each position where two neighbours are "
     "the pair, even if these positions overlap",
     _best(_by_count_and_pair, pairs=_pairs_that_do_not_overlap)),
    ("(5, 6) and (6, 5) are counted as the same pair. The order matters",
     _best(_by_count_and_pair, pairs=_sorted_pairs)),
    ("only every other position is counted. Pairs overlap: a pair begins at every id except the "
     "last",
     _best(_by_count_and_pair, pairs=_pairs_at_even_positions)),
    ("the last id of a word and its first id are counted as a pair. They are not neighbours",
     _best(_by_count_and_pair, pairs=lambda ids: zip(ids, ids[1:] + ids[:1], strict=True))),
    ("the first pair of each word is counted alone. Count all pairs of neighbours",
     _best(_by_count_and_pair, pairs=lambda ids: [ids[:2]][:len(ids) - 1])),
    ("the last pair of each word is counted alone. Count all pairs of neighbours",
     _best(_by_count_and_pair, pairs=lambda ids: [ids[-2:]][:len(ids) - 1])),
    ("the last pair of each word is left out. A pair begins at every id except the last",
     _best(_by_count_and_pair, pairs=lambda ids: pairwise(ids[:-1]))),
    ("ids that are two positions apart are counted as pairs. Count neighbours",
     _best(_by_count_and_pair, pairs=lambda ids: zip(ids, ids[2:], strict=False))),
    ("the largest count of one word decides. Add up the counts of all words",
     _best_with_the_largest_count),
    ("the pair is written in the reverse order. The id that comes first in the word comes first",
     lambda words: _right_best_pair(words)[::-1]),
    ("the ids of the pair are sorted. Leave them in the order of the word",
     lambda words: tuple(sorted(_right_best_pair(words)))),
    ("words that occur once are left out. Every occurrence counts",
     lambda words: _right_best_pair({ids: count for ids, count in words.items() if count > 1})),
    ("the count is multiplied by the length of the word. Each occurrence of a pair counts 1",
     lambda words: _right_best_pair(
         {ids: count * len(ids) for ids, count in words.items()})),
    ("the second most frequent pair is the result. Take the most frequent",
     lambda words: _ranked_pairs(words)[1]),
    ("single ids are counted. Count pairs of neighbours", _best_single_id_twice),
    ("the result is a pair of the most frequent word. Add up the counts over all words",
     _best_in_the_most_frequent_word),
    ("the result is the smallest of all pairs. Compare the counts first",
     lambda words: min(_pair_counts(words))),
]


def _best_pair_properties(reader: Reader):
    mistakes = [(sentence, _returning(_pair, mistake)) for sentence, mistake in BEST_PAIR_MISTAKES]
    trials = compare(_without_side_effects(reader), _returning(_pair, _right_best_pair),
                     BEST_PAIR_CASES, mistakes, _pair)
    _raise_first_difference(trials, lambda tensor: tuple(tensor.tolist()))


# encode_word --------------------------------------------------------------------------------------


def check_encode_word(encode_word) -> Result:
    """Check `encode_word(ids, merges)`.

    The arguments are the bytes of a word and {pair: new id} in the order in which training learned
    them. The result is a list of tokens. Of the pairs in the word, the one that was learned first
    is merged first.
    """
    return check("encode_word", encode_word, _encode_word_properties,
                 "the merges are applied in the order in which training learned them")


def _right_encoding(ids, merges):
    for pair, new_id in sorted(merges.items(), key=lambda merge: merge[1]):
        ids = _right_merge(ids, pair, new_id)
    return ids


def _spelling(merges):
    """Return the bytes of each learned token."""
    pairs = {new_id: pair for pair, new_id in merges.items()}

    def spell(token):
        if token not in pairs:
            return (token,)
        left, right = pairs[token]
        return spell(left) + spell(right)

    return {token: spell(token) for token in pairs}


def _encode_cases():
    learned = {(2, 3): 10, (1, 2): 11, (10, 4): 12, (3, 4): 13, (12, 12): 14, (5, 5): 15,
               (15, 5): 16, (11, 13): 17}

    def first(n):
        return dict(list(learned.items())[:n])

    return [{"ids": ids, "merges": merges} for ids, merges in [
        ([2, 3], first(1)),
        ([1, 2], first(1)),
        ([1, 2, 3], first(2)),
        ([], first(2)),
        ([7], learned),
        ([2, 3, 2, 3], first(1)),
        ([2, 3, 4], first(3)),
        ([2, 3, 4], first(4)),
        ([5, 5, 5], learned),
        ([1, 2, 3, 4], learned),
        ([5, 5, 5, 5, 5], learned),
        ([2, 3, 4, 2, 3, 4], learned),
        ([1, 2, 4, 3, 4], learned),
        ([1, 2, 3], {(2, 3): 10, (1, 2): 11, (1, 10): 12}),
        ([1, 2, 9, 1, 2, 3, 4, 5, 5], learned),
        ([3, 4, 1, 2, 3, 4, 3, 4], learned),
        ([1, 2, 4, 2, 4], {(1, 2): 10, (2, 4): 11}),
        ([1, 2, 3], {}),
        ([1, 2, 3, 4], {(1, 2): 20, (3, 4): 21, (20, 21): 22, (2, 3): 23}),
        ([1, 2, 3, 2, 3, 4], {(2, 3): 10, (1, 10): 11, (11, 10): 12, (12, 4): 13}),
        ([2, 3, 2, 3, 4], learned),
        ([5, 5, 1, 2, 3, 4], {(1, 2): 20, (5, 5): 21, (20, 3): 22, (22, 4): 23}),
        # Enough different inputs to tell similar mistakes apart.
        *((random.Random(seed).choices(range(1, 5), k=12), _learned(seed)) for seed in range(15)),
    ]]


def _learned(seed):
    """Return the first merges that training learns from random words."""
    words, merges = _random_words(seed), {}
    for new_id in range(10, 17):
        if not _pair_counts(words):
            break
        pair = _right_best_pair(words)
        merges[pair] = new_id
        words = {tuple(_right_merge(ids, pair, new_id)): count for ids, count in words.items()}
    return merges


def _encode_by(choose):
    """Return an encoder that merges `choose(known pairs, merges)` again and again."""
    def encode(ids, merges):
        while known := [pair for pair in pairwise(ids) if pair in merges]:
            pair = choose(known, merges)
            ids = _right_merge(ids, pair, merges[pair])
        return ids
    return encode


def _length_of(merges):
    """Return a function that tells how many bytes the token of a pair has."""
    spelling = _spelling(merges)
    return lambda pair: len(spelling[merges[pair]])


def _encode_in_the_order_of(order):
    """Return an encoder that applies each merge once, in the order that `order(pairs)` gives."""
    def encode(ids, merges):
        for pair in order(merges):
            ids = _right_merge(ids, pair, merges[pair])
        return ids
    return encode


def _encode_pairs_of_the_bytes(ids, merges):
    for pair in sorted(set(pairwise(ids)) & merges.keys(), key=merges.get):
        ids = _right_merge(ids, pair, merges[pair])
    return ids


def _encode_as_numbers(ids, merges):
    number = {new_id: n for n, new_id in enumerate(merges.values())}
    return [number.get(i, i) for i in _right_encoding(ids, merges)]


def _encode_leftmost_first(ids, merges):
    while True:
        known = [i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) in merges]
        if not known:
            return ids
        i = known[0]
        ids = ids[:i] + [merges[ids[i], ids[i + 1]]] + ids[i + 2:]


def _encode_with_a_stack(ids, merges):
    stack = []
    for i in ids:
        stack.append(i)
        if tuple(stack[-2:]) in merges:
            stack[-2:] = [merges[tuple(stack[-2:])]]
    return stack


def _encode_in_a_single_pass(ids, merges):
    tokens, i = [], 0
    while i < len(ids):
        found = tuple(ids[i:i + 2]) in merges
        tokens.append(merges[tuple(ids[i:i + 2])] if found else ids[i])
        i += 1 + found
    return tokens


def _encode_longest_first(ids, merges):
    tokens, i = [], 0
    token_of = {spelling: token for token, spelling in _spelling(merges).items()}
    while i < len(ids):
        fitting = [spelling for spelling in token_of if tuple(ids[i:i + len(spelling)]) == spelling]
        longest = max(fitting, key=len, default=None)
        tokens.append(ids[i] if longest is None else token_of[longest])
        i += 1 if longest is None else len(longest)
    return tokens


def _encode_with_one_merge(ids, merges):
    known = [pair for pair in pairwise(ids) if pair in merges]
    if not known:
        return ids
    pair = min(known, key=merges.get)
    return _right_merge(ids, pair, merges[pair])


def _encode_backwards(ids, merges):
    for pair, new_id in sorted(merges.items(), key=lambda merge: -merge[1]):
        ids = _right_merge(ids, pair, new_id)
    return ids


def _encode_at_one_position(ids, merges):
    for pair, new_id in merges.items():
        ids = _merge_first_only(ids, pair, new_id)
    return ids


LEARNED_FIRST = ("The merge that was learned first (the smallest new id) should come first, "
                 "wherever its pair stands in the word")
MOST_FREQUENT_FIRST = ("the most frequent pair of this word is merged first. That is the rule of "
                       f"training, not of encoding. {LEARNED_FIRST}")

ENCODE_MISTAKES = [
    ("nothing is merged. Is a list compared with a tuple? They are never equal",
     lambda ids, merges: ids),
    (f"the longest known token is taken from the left, as in a dictionary. {LEARNED_FIRST}",
     _encode_longest_first),
    (f"the leftmost known pair is merged first. {LEARNED_FIRST}", _encode_leftmost_first),
    ("the function goes through the word once from left to right, and merges every pair that it "
     f"knows. {LEARNED_FIRST}",
     _encode_with_a_stack),
    ("the function goes through the word once, so tokens never grow beyond two bytes. Go on until "
     f"no known pair is left. {LEARNED_FIRST}",
     _encode_in_a_single_pass),
    ("the function stops after one merge. Go on until no known pair is left",
     _encode_with_one_merge),
    (f"the merge that was learned last goes first. {LEARNED_FIRST}",
     _encode_by(lambda known, merges: max(known, key=merges.get))),
    (f"the merges are applied backwards, beginning with the last one. {LEARNED_FIRST}",
     _encode_backwards),
    (MOST_FREQUENT_FIRST,
     _encode_by(lambda known, merges: max(known, key=lambda p: (known.count(p), -merges[p])))),
    (MOST_FREQUENT_FIRST, _encode_by(lambda known, merges: max(known, key=known.count))),
    (MOST_FREQUENT_FIRST,
     _encode_by(lambda known, merges: min(known, key=lambda pair: (-known.count(pair), pair)))),
    (f"the pair with the smallest ids is merged first. {LEARNED_FIRST}",
     _encode_by(lambda known, merges: min(known))),
    ("the pair with the largest ids is merged first. " + LEARNED_FIRST,
     _encode_by(lambda known, merges: max(known))),
    (f"the rightmost known pair is merged first. {LEARNED_FIRST}",
     _encode_by(lambda known, merges: known[-1])),
    (f"the pair that makes the longest token is merged first. {LEARNED_FIRST}",
     _encode_by(lambda known, merges: max(known, key=_length_of(merges)))),
    (f"the rarest pair of this word is merged first. {LEARNED_FIRST}",
     _encode_by(lambda known, merges: min(known, key=lambda p: (known.count(p), merges[p])))),
    (f"the merges are applied in the order of their ids. {LEARNED_FIRST}",
     _encode_in_the_order_of(sorted)),
    (f"the merges are applied in the reverse order of their ids. {LEARNED_FIRST}",
     _encode_in_the_order_of(lambda known: sorted(known, reverse=True))),
    ("the known pairs are collected once, at the beginning, so tokens that a merge makes are never "
     "merged again. Look for known pairs again after each merge",
     _encode_pairs_of_the_bytes),
    ("the result contains the numbers of the merges, counted from 0. Use their new ids",
     _encode_as_numbers),
    ("each merge is applied at one position only. Replace every occurrence of the pair before you "
     "go on to the next merge",
     _encode_at_one_position),
]


def _encode_word_properties(reader: Reader):
    mistakes = [(sentence, _returning(_ids, mistake)) for sentence, mistake in ENCODE_MISTAKES]
    trials = compare(_without_side_effects(reader), _returning(_ids, _right_encoding),
                     _encode_cases(), mistakes, _ids)
    _raise_first_difference(trials, _ids_as_list)


# stream -------------------------------------------------------------------------------------------


def check_stream(stream) -> Result:
    """Check `stream(tokens)`.

    The argument is a list with the bytes of each token. The result is a list with one text for each
    token: the characters that the token completes, "" if it completes none.
    """
    return check("stream", stream, _stream_properties,
                 "every character appears with the token that completes it, neither earlier nor "
                 "later")


def _right_stream(tokens):
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(token) for token in tokens]


def _texts(answer):
    """Return a list of texts as a tensor.

    It has the number of texts, the code points of each with -1 after them, and -2 at the end.
    """
    if not isinstance(answer, (list, tuple)):
        raise Wrong(f"the function returns a value of type {type(answer).__name__}, "
                    "but it should return a list of texts, one for each token")
    for text in answer:
        if not isinstance(text, str):
            raise Wrong(f"the list contains an element of type {type(text).__name__}, "
                        "but it should contain texts (str), one for each token")
    codes = []
    for text in answer:
        codes += [*map(ord, text), -1]
    return torch.tensor([len(answer), *codes[:MAX_LENGTH], *[-2] * (MAX_LENGTH - len(codes))])


def _texts_as_list(tensor):
    texts, text = [], ""
    for code in tensor[1:].tolist():
        if code == -1:
            texts, text = [*texts, text], ""
        elif code >= 0:
            text += chr(code)
    return texts


def _stream_cases():
    e, euro, wave = "é".encode(), "€".encode(), "👋".encode()
    two, japanese, mark = "é€".encode(), "日本".encode(), "\ufffd".encode()
    return [{"tokens": tokens} for tokens in (
        [b"a"],
        [b"to", b" be"],
        [e[:1], e[1:]],
        [b"caf" + e[:1], e[1:] + b"!"],
        [euro[:1], euro[1:2], euro[2:]],
        [euro[:2], euro[2:] + b"1"],
        [wave[:2], wave[2:], b"!"],
        [b"hi " + wave[:1], wave[1:3], wave[3:]],
        [two[:3], two[3:], b"."],
        [e[:1], e[1:] + e[:1], e[1:]],
        [mark, b"x"],
        [b"ok", mark],
        [b"", b"a", b""],
        [mark[:1], mark[1:], b"z"],
        [japanese[:4], japanese[4:5], japanese[5:]],
        [wave[i:i + 1] for i in range(4)],
        *(_cut_at_random("tö 日é 👋\ufffd€!", seed) for seed in range(8)),
    )]


def _cut_at_random(text, seed):
    """Return the bytes of the text, cut into tokens of 0 to 4 bytes."""
    generator, data, tokens = random.Random(seed), text.encode(), []
    while data:
        n = generator.randint(0, 4)
        tokens.append(data[:n])
        data = data[n:]
    return tokens


def _decode_each(errors):
    return lambda tokens: [token.decode("utf-8", errors) for token in tokens]


def _stream_by(decode):
    """Return a stream in which `decode(bytes)` returns a text and the bytes that are left over."""
    def stream(tokens):
        left_over, texts = b"", []
        for token in tokens:
            text, left_over = decode(left_over + token)
            texts.append(text)
        return texts
    return stream


def _all_or_nothing(data):
    try:
        return data.decode(), b""
    except UnicodeDecodeError:
        return "", data


def _up_to_the_error(data):
    """Return the text before an incomplete character."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return data[:error.start].decode()


def _wait_while_a_mark_is_at_the_end(data):
    if data.decode("utf-8", "replace").endswith("\ufffd"):
        return "", data
    return data.decode(), b""


def _without_marks_at_the_end(data):
    text = data.decode("utf-8", "replace").rstrip("\ufffd")
    return text, data[len(text.encode()):]


def _new_part_of_the_text(errors):
    """Return a stream that decodes all bytes so far, and returns what is longer than before."""
    def stream(tokens):
        texts, shown = [], 0
        for i in range(len(tokens)):
            text = b"".join(tokens[:i + 1]).decode("utf-8", errors)
            texts.append(text[shown:])
            shown = len(text)
        return texts
    return stream


def _with_the_first_byte(tokens):
    """Give each character to the token that contains its first byte."""
    data, texts, end = b"".join(tokens), [], 0
    n_shown = 0
    for token in tokens:
        end += len(token)
        n_begun = sum(byte & 0xC0 != 0x80 for byte in data[:end])
        texts.append(data.decode()[n_shown:n_begun])
        n_shown = n_begun
    return texts


def _all_at_the_end(tokens):
    return [""] * (len(tokens) - 1) + [b"".join(tokens).decode()]


def _everything_so_far(tokens):
    texts, text = [], ""
    for new in _right_stream(tokens):
        text += new
        texts.append(text)
    return texts


REAL_MARK = (
    "a � that really stands in the text is taken for half a character. Look at the bytes, or let "
    "strict decoding tell you what is incomplete")

STREAM_MISTAKES = [
    ("half a character became �. Keep its bytes until the other bytes of the character arrive, and "
     "decode them together",
     _decode_each("replace")),
    ("characters that are split between two tokens are lost, because errors=\"ignore\" drops their "
     "bytes. Keep these bytes until the other bytes of the character arrive",
     _decode_each("ignore")),
    ("the bytes of a split character are forgotten. Keep the bytes from the error on, "
     "data[error.start:], and put them before the next token",
     lambda tokens: [_up_to_the_error(token) for token in tokens]),
    ("each byte became a character of its own. The bytes are utf-8, where one character has up to "
     "four bytes",
     lambda tokens: [token.decode("latin-1") for token in tokens]),
    ("all characters come at the end. Each character should come with the token that completes it",
     _all_at_the_end),
    ("each text comes one token too late", lambda tokens: ["", *_right_stream(tokens)[:-1]]),
    ("each text repeats everything before it. Return only what is new", _everything_so_far),
    ("whole characters wait because half a character follows them. Return the whole characters, "
     "and keep only the half one",
     _stream_by(_all_or_nothing)),
    (REAL_MARK, _stream_by(_without_marks_at_the_end)),
    (f"{REAL_MARK}. There is a second mistake: whole characters wait because half a character "
     "follows them",
     _stream_by(_wait_while_a_mark_is_at_the_end)),
    ("tokens that complete no character are left out. Each token should have its text, so return "
     "\"\" for these",
     lambda tokens: [text for text in _right_stream(tokens) if text]),
    ("there is one text in all. Return one text for each token",
     lambda tokens: [b"".join(tokens).decode()]),
    ("there is one text for each character. Return one text for each token",
     lambda tokens: list(b"".join(tokens).decode())),
    ("bytes outside of ASCII are left out. The bytes are utf-8, so decode them together as utf-8",
     lambda tokens: [token.decode("ascii", "ignore") for token in tokens]),
    ("half a character became an escape like \\xc3. Keep its bytes until the other bytes of the "
     "character arrive",
     _decode_each("backslashreplace")),
    ("half a character became a surrogate, which no text may contain. Keep its bytes until the "
     "other bytes of the character arrive",
     _decode_each("surrogateescape")),
    ("every � is taken out of the text, and so characters that are split between two tokens are "
     "lost. Keep their bytes until the other bytes of the character arrive",
     lambda tokens: [token.decode("utf-8", "replace").replace("\ufffd", "") for token in tokens]),
    ("half a character became �, and the whole character is never shown, because the new text is "
     "cut off at the length of the old one. Count complete characters only",
     _new_part_of_the_text("replace")),
    ("each text is one token early: a character appears with its first byte. It is complete with "
     "its last byte",
     _with_the_first_byte),
    ("there is one text too many at the end. Return one text for each token",
     lambda tokens: [*_right_stream(tokens), ""]),
    ("there is one text for each byte. Return one text for each token",
     lambda tokens: _right_stream([bytes([byte]) for byte in b"".join(tokens)])),
    ("spaces are taken away. A space is a character like any other",
     lambda tokens: [text.strip() for text in _right_stream(tokens)]),
    ("only one character of each token is returned. A token may complete several",
     lambda tokens: [text[-1:] for text in _right_stream(tokens)]),
    ("the result contains bytes written out as text (b'…'). Decode the bytes",
     lambda tokens: [str(token) for token in tokens]),
]


def _stream_properties(reader: Reader):
    mistakes = [(sentence, _returning(_texts, mistake)) for sentence, mistake in STREAM_MISTAKES]
    trials = compare(_without_side_effects(reader), _returning(_texts, _right_stream),
                     _stream_cases(), mistakes, _texts)
    for trial in trials:
        if trial.got[0] != trial.expected[0]:
            raise Wrong(f"there are {int(trial.got[0])} texts for {int(trial.expected[0])} tokens. "
                        "Return one text for each token, \"\" if it completes no character")
    _raise_first_difference(trials, _texts_as_list)
