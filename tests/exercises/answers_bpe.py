"""Chapter 5: right and wrong answers, and words that the verdict on a wrong answer must contain."""

import codecs
from collections import Counter
from itertools import pairwise

from collecting import Answers

WRONG, RIGHT = Answers(), Answers()


# merge --------------------------------------------------------------------------------------------

@RIGHT.to("merge")
def with_a_while_loop(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@RIGHT.to("merge")
def as_characters(ids, pair, new_id):
    text = "".join(map(chr, ids))
    return [ord(c) for c in text.replace(chr(pair[0]) + chr(pair[1]), chr(new_id))]


@RIGHT.to("merge")
def with_an_iterator(ids, pair, new_id):
    # first_half: whether the last id may be the first half of the pair.
    merged, first_half = [], False
    for i in ids:
        if first_half and i == pair[1]:
            merged[-1], first_half = new_id, False
        else:
            merged.append(i)
            first_half = i == pair[0]
    return merged


@WRONG.to("merge", "takes part in two pairs")
def one_step_after_a_merge(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids):
        merged.append(new_id if tuple(ids[i:i + 2]) == pair else ids[i])
        i += 1
    return merged


@WRONG.to("merge", "last token is lost")
def stops_before_the_last(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@WRONG.to("merge", "IndexError", "out of range")
def runs_over_the_end(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids):
        if (ids[i], ids[i + 1]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@WRONG.to("merge", "last token comes twice")
def last_one_added_always(ids, pair, new_id):
    return stops_before_the_last(ids, pair, new_id) + ids[-1:]


@WRONG.to("merge", "only the first occurrence")
def only_once(ids, pair, new_id):
    for i in range(len(ids) - 1):
        if (ids[i], ids[i + 1]) == pair:
            return ids[:i] + [new_id] + ids[i + 2:]
    return list(ids)


@WRONG.to("merge", "from the right")
def backwards(ids, pair, new_id):
    merged, i = [], len(ids) - 1
    while i >= 0:
        if i and (ids[i - 1], ids[i]) == pair:
            merged.append(new_id)
            i -= 2
        else:
            merged.append(ids[i])
            i -= 1
    return merged[::-1]


@WRONG.to("merge", "either order")
def any_order(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and {ids[i], ids[i + 1]} == set(pair):
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@WRONG.to("merge", "changes its argument `ids`")
def in_place(ids, pair, new_id):
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i:i + 2] = [new_id]
        i += 1
    return ids


@WRONG.to("merge", "merged again")
def until_nothing_is_left(ids, pair, new_id):
    ids, i = list(ids), 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i:i + 2] = [new_id]
            i = 0
        else:
            i += 1
    return ids


@WRONG.to("merge", "digits", "11 2")
def as_a_text_of_digits(ids, pair, new_id):
    text = " ".join(str(i) for i in ids)
    return [int(i) for i in text.replace(f"{pair[0]} {pair[1]}", str(new_id)).split()]


@WRONG.to("merge", "single ids")
def each_id_of_the_pair(ids, pair, new_id):
    return [new_id if i in pair else i for i in ids]


@WRONG.to("merge", "disappears")
def the_pair_removed(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i:i + 2]) == pair:
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@WRONG.to("merge", "nothing is merged", "list", "tuple")
def list_and_tuple_compared(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids):
        # A list is never equal to a tuple.
        if ids[i:i + 2] == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@WRONG.to("merge", "even positions")
def at_even_positions(ids, pair, new_id):
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i:i + 2]) == pair:
            merged.append(new_id)
        else:
            merged += ids[i:i + 2]
        i += 2
    return merged


@WRONG.to("merge", "list", "integer")
def pairs_in_the_list(ids, pair, new_id):
    return [[i] for i in ids]


# best_pair ----------------------------------------------------------------------------------------

def counted(words):
    counts = Counter()
    for ids, count in words.items():
        for pair in pairwise(ids):
            counts[pair] += count
    return counts


@RIGHT.to("best_pair")
def sorted_by_count_and_pair(words):
    counts = counted(words)
    return sorted(counts, key=lambda pair: (-counts[pair], pair))[0]


@RIGHT.to("best_pair")
def smallest_of_the_most_frequent(words):
    counts = counted(words)
    most = max(counts.values())
    return min(pair for pair in counts if counts[pair] == most)


@WRONG.to("best_pair", "each word is counted once")
def word_counts_forgotten(words):
    counts = Counter(pair for ids in words for pair in pairwise(ids))
    return min(counts, key=lambda pair: (-counts[pair], pair))


@WRONG.to("best_pair", "overwritten")
def counts_overwritten(words):
    counts = {}
    for ids, count in words.items():
        for pair in pairwise(ids):
            counts[pair] = count
    return min(counts, key=lambda pair: (-counts[pair], pair))


@WRONG.to("best_pair", "same first id")
def ties_by_the_first_id(words):
    counts = counted(words)
    return min(counts, key=lambda pair: (-counts[pair], pair[0]))


@WRONG.to("best_pair", "first one found")
def most_common(words):
    return counted(words).most_common(1)[0][0]


@WRONG.to("best_pair", "first one found", "each word")
def most_common_of_the_words_alone(words):
    return Counter(pair for ids in words for pair in pairwise(ids)).most_common(1)[0][0]


@WRONG.to("best_pair", "the largest wins")
def largest_of_the_most_frequent(words):
    counts = counted(words)
    return max(counts, key=lambda pair: (counts[pair], pair))


@WRONG.to("best_pair", "last one found")
def last_of_the_most_frequent(words):
    best, most = None, 0
    for pair, count in counted(words).items():
        if count >= most:
            best, most = pair, count
    return best


@WRONG.to("best_pair", "count comes with the pair")
def pair_and_count(words):
    counts = counted(words)
    return min(counts.items(), key=lambda item: (-item[1], item[0]))


@WRONG.to("best_pair", "list of one", "most_common")
def list_of_most_common(words):
    return counted(words).most_common(1)


@WRONG.to("best_pair", "rarest")
def the_rarest(words):
    counts = counted(words)
    return min(counts, key=lambda pair: (counts[pair], pair))


@WRONG.to("best_pair", "from one word into the next")
def words_joined(words):
    ids = [i for word, count in words.items() for _ in range(count) for i in word]
    counts = Counter(pairwise(ids))
    return min(counts, key=lambda pair: (-counts[pair], pair))


@WRONG.to("best_pair", "once in a word")
def a_set_for_each_word(words):
    counts = Counter()
    for ids, count in words.items():
        for pair in set(pairwise(ids)):
            counts[pair] += count
    return min(counts, key=lambda pair: (-counts[pair], pair))


@WRONG.to("best_pair", "order matters")
def unordered(words):
    counts = Counter()
    for ids, count in words.items():
        for a, b in pairwise(ids):
            counts[min(a, b), max(a, b)] += count
    return min(counts, key=lambda pair: (-counts[pair], pair))


@WRONG.to("best_pair", "every other position")
def by_twos(words):
    counts = Counter()
    for ids, count in words.items():
        for i in range(0, len(ids) - 1, 2):
            counts[ids[i:i + 2]] += count
    return min(counts, key=lambda pair: (-counts[pair], pair))


@WRONG.to("best_pair", "most frequent word")
def of_the_most_frequent_word(words):
    ids = max((ids for ids in words if len(ids) > 1), key=words.get)
    counts = Counter(pairwise(ids))
    return min(counts, key=lambda pair: (-counts[pair], pair))


@WRONG.to("best_pair", "int", "pair of ids")
def the_count(words):
    return max(counted(words).values())


# encode_word --------------------------------------------------------------------------------------

def merged(ids, pair, new_id):
    return with_a_while_loop(ids, pair, new_id)


def known_pairs(ids, merges):
    return [pair for pair in pairwise(ids) if pair in merges]


@RIGHT.to("encode_word")
def in_the_order_learned(ids, merges):
    for pair, new_id in merges.items():
        ids = merged(ids, pair, new_id)
    return ids


@RIGHT.to("encode_word")
def lowest_first(ids, merges):
    while pairs := known_pairs(ids, merges):
        pair = min(pairs, key=merges.get)
        ids = merged(ids, pair, merges[pair])
    return ids


@RIGHT.to("encode_word")
def one_place_at_a_time(ids, merges):
    ids = list(ids)
    while pairs := known_pairs(ids, merges):
        pair = min(pairs, key=merges.get)
        at = next(i for i in range(len(ids)) if tuple(ids[i:i + 2]) == pair)
        ids[at:at + 2] = [merges[pair]]
    return ids


@WRONG.to("encode_word", "leftmost", "learned first")
def leftmost_first(ids, merges):
    ids, i = list(ids), 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) in merges:
            ids[i:i + 2] = [merges[ids[i], ids[i + 1]]]
            i = 0
        else:
            i += 1
    return ids


@WRONG.to("encode_word", "dictionary", "longest")
def longest_match(ids, merges):
    parts = {}
    for (a, b), new_id in merges.items():
        parts[new_id] = (*parts.get(a, (a,)), *parts.get(b, (b,)))
    result, i = [], 0
    while i < len(ids):
        fitting = [(len(p), new_id) for new_id, p in parts.items() if tuple(ids[i:i + len(p)]) == p]
        length, token = max(fitting, default=(1, ids[i]))
        result.append(token)
        i += length
    return result


@WRONG.to("encode_word", "once from left to right")
def a_stack(ids, merges):
    stack = []
    for i in ids:
        stack.append(i)
        if len(stack) >= 2 and (stack[-2], stack[-1]) in merges:
            b, a = stack.pop(), stack.pop()
            stack.append(merges[a, b])
    return stack


@WRONG.to("encode_word", "never grow beyond two bytes")
def a_single_pass(ids, merges):
    result, i = [], 0
    while i < len(ids):
        pair = tuple(ids[i:i + 2])
        if pair in merges:
            result.append(merges[pair])
            i += 2
        else:
            result.append(ids[i])
            i += 1
    return result


@WRONG.to("encode_word", "stops after one merge")
def one_merge(ids, merges):
    pairs = known_pairs(ids, merges)
    if not pairs:
        return ids
    pair = min(pairs, key=merges.get)
    return merged(ids, pair, merges[pair])


@WRONG.to("encode_word", "learned last goes first")
def highest_first(ids, merges):
    while pairs := known_pairs(ids, merges):
        pair = max(pairs, key=merges.get)
        ids = merged(ids, pair, merges[pair])
    return ids


@WRONG.to("encode_word", "backwards")
def in_reverse_order(ids, merges):
    for pair, new_id in reversed(merges.items()):
        ids = merged(ids, pair, new_id)
    return ids


@WRONG.to("encode_word", "most frequent pair", "training")
def most_frequent_pair_of_the_word(ids, merges):
    while pairs := known_pairs(ids, merges):
        pair = max(pairs, key=lambda pair: (pairs.count(pair), -merges[pair]))
        ids = merged(ids, pair, merges[pair])
    return ids


@WRONG.to("encode_word", "most frequent pair", "training")
def most_frequent_or_leftmost_pair(ids, merges):
    while pairs := known_pairs(ids, merges):
        pair = Counter(pairs).most_common(1)[0][0]
        ids = merged(ids, pair, merges[pair])
    return ids


@WRONG.to("encode_word", "most frequent pair", "training")
def most_frequent_or_smallest_pair(ids, merges):
    while pairs := known_pairs(ids, merges):
        counts = Counter(pairs)
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        ids = merged(ids, pair, merges[pair])
    return ids


@WRONG.to("encode_word", "smallest ids")
def smallest_pair(ids, merges):
    while pairs := known_pairs(ids, merges):
        ids = merged(ids, min(pairs), merges[min(pairs)])
    return ids


@WRONG.to("encode_word", "one position only")
def first_place_of_each(ids, merges):
    ids = list(ids)
    for pair, new_id in merges.items():
        for i in range(len(ids) - 1):
            if (ids[i], ids[i + 1]) == pair:
                ids[i:i + 2] = [new_id]
                break
    return ids


@WRONG.to("encode_word", "changes its argument `ids`")
def on_the_caller_s_list(ids, merges):
    for pair, new_id in merges.items():
        i = 0
        while i < len(ids) - 1:
            if (ids[i], ids[i + 1]) == pair:
                ids[i:i + 2] = [new_id]
            i += 1
    return ids


@WRONG.to("encode_word", "nothing is merged", "tuple")
def looked_up_as_a_list(ids, merges):
    for pair, new_id in merges.items():
        ids = list_and_tuple_compared(ids, pair, new_id)
    return ids


# stream -------------------------------------------------------------------------------------------

@RIGHT.to("stream")
def with_an_incremental_decoder(tokens):
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(token) for token in tokens]


@RIGHT.to("stream")
def by_the_place_of_the_error(tokens):
    left_over, texts = b"", []
    for token in tokens:
        left_over += token
        try:
            whole = len(left_over.decode("utf-8").encode("utf-8"))
        except UnicodeDecodeError as error:
            whole = error.start
        texts.append(left_over[:whole].decode("utf-8"))
        left_over = left_over[whole:]
    return texts


@RIGHT.to("stream")
def by_the_first_byte(tokens):
    left_over, texts = b"", []
    for token in tokens:
        left_over += token
        text = ""
        while left_over:
            first = left_over[0]
            n = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            if len(left_over) < n:
                break
            text, left_over = text + left_over[:n].decode("utf-8"), left_over[n:]
        texts.append(text)
    return texts


@WRONG.to("stream", "�", "keep its bytes")
def replacement_marks(tokens):
    return [token.decode("utf-8", errors="replace") for token in tokens]


@WRONG.to("stream", "ignore", "lost")
def halves_ignored(tokens):
    return [token.decode("utf-8", errors="ignore") for token in tokens]


@WRONG.to("stream", "UnicodeDecodeError")
def strict(tokens):
    return [token.decode("utf-8") for token in tokens]


@WRONG.to("stream", "each byte", "utf-8")
def latin_1(tokens):
    return ["".join(chr(byte) for byte in token) for token in tokens]


@WRONG.to("stream", "at the end")
def all_at_the_end(tokens):
    return [""] * (len(tokens) - 1) + [b"".join(tokens).decode("utf-8")]


@WRONG.to("stream", "repeats")
def everything_so_far(tokens):
    return [b"".join(tokens[:i + 1]).decode("utf-8", errors="ignore") for i in range(len(tokens))]


@WRONG.to("stream", "whole characters wait")
def waits_for_the_whole_buffer(tokens):
    left_over, texts = b"", []
    for token in tokens:
        left_over += token
        try:
            texts.append(left_over.decode("utf-8"))
            left_over = b""
        except UnicodeDecodeError:
            texts.append("")
    return texts


@WRONG.to("stream", "really stands in the text")
def a_mark_at_the_end_means_half(tokens):
    left_over, texts = b"", []
    for token in tokens:
        left_over += token
        text = left_over.decode("utf-8", errors="replace")
        if text.endswith("�"):
            texts.append("")
        else:
            texts.append(text)
            left_over = b""
    return texts


@WRONG.to("stream", "left out")
def only_what_is_complete(tokens):
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [text for token in tokens if (text := decoder.decode(token))]


@WRONG.to("stream", "one text in all")
def a_list_of_one(tokens):
    return [b"".join(tokens).decode("utf-8")]


@WRONG.to("stream", "str", "list of texts")
def one_string(tokens):
    return b"".join(tokens).decode("utf-8")


@WRONG.to("stream", "type bytes", "str")
def bytes_kept(tokens):
    return [codecs.getincrementaldecoder("utf-8")().decode(b"a") and token for token in tokens]


@WRONG.to("stream", "written out")
def str_of_bytes(tokens):
    return [str(token) for token in tokens]


@WRONG.to("stream", "one token too late")
def one_behind(tokens):
    return ["", *with_an_incremental_decoder(tokens)[:-1]]


# Answers of more students -------------------------------------------------------------------------

@RIGHT.to("merge")
def with_a_deque(ids, pair, new_id):
    from collections import deque

    left, result = deque(ids), []
    while left:
        result.append(left.popleft())
        if left and (result[-1], left[0]) == pair:
            left.popleft()
            result[-1] = new_id
    return result


@RIGHT.to("merge")
def by_recursion(ids, pair, new_id):
    if len(ids) < 2:
        return ids[:]
    if ids[0] == pair[0] and ids[1] == pair[1]:
        return [new_id] + by_recursion(ids[2:], pair, new_id)
    return ids[:1] + by_recursion(ids[1:], pair, new_id)


@RIGHT.to("merge")
def with_a_generator(ids, pair, new_id):
    def tokens():
        left = iter([*ids, None])
        a = next(left)
        for b in left:
            merged = (a, b) == pair
            if a is not None:
                yield new_id if merged else a
            a = next(left, None) if merged else b

    return list(tokens())


@RIGHT.to("merge")
def replaced_in_a_copy(ids, pair, new_id):
    ids, i = ids[:], 0
    while i + 1 < len(ids):
        if ids[i:i + 2] == list(pair):
            ids[i:i + 2] = [new_id]
        i += 1
    return ids


def every_merge_becomes(ids, pair, tokens):
    result, i = [], 0
    while i < len(ids):
        found = tuple(ids[i:i + 2]) == pair
        result += tokens if found else [ids[i]]
        i += 2 if found else 1
    return result


@WRONG.to("merge", "first id of the pair stays")
def first_id_kept(ids, pair, new_id):
    """Replace the second id only."""
    return every_merge_becomes(ids, pair, [pair[0], new_id])


@WRONG.to("merge", "second id of the pair stays")
def second_id_kept(ids, pair, new_id):
    """Replace the first id only."""
    return every_merge_becomes(ids, pair, [new_id, pair[1]])


@WRONG.to("merge", "stand at the end of the list")
def added_at_the_end(ids, pair, new_id):
    """Take the pairs out, and add the new tokens at the end."""
    rest = every_merge_becomes(ids, pair, [])
    return rest + [new_id] * ((len(ids) - len(rest)) // 2)


@WRONG.to("merge", "only the last occurrence")
def last_only(ids, pair, new_id):
    """Search from the end, and stop."""
    for i in reversed(range(len(ids) - 1)):
        if (ids[i], ids[i + 1]) == pair:
            return [*ids[:i], new_id, *ids[i + 2:]]
    return ids


@WRONG.to("merge", "any two ids of the pair")
def both_in_the_pair(ids, pair, new_id):
    """Ask whether both ids are in the pair."""
    result, i = [], 0
    while i < len(ids):
        found = i + 1 < len(ids) and ids[i] in pair and ids[i + 1] in pair
        result.append(new_id if found else ids[i])
        i += 2 if found else 1
    return result


@WRONG.to("merge", "first id of the pair alone decides")
def first_id_compared(ids, pair, new_id):
    """Compare pair[0] only."""
    result, i = [], 0
    while i < len(ids):
        found = i + 1 < len(ids) and ids[i] == pair[0]
        result.append(new_id if found else ids[i])
        i += 2 if found else 1
    return result


@WRONG.to("merge", "uses up three ids")
def three_steps_after_a_merge(ids, pair, new_id):
    """Go on by two in the branch, and by one after it."""
    result, i = [], 0
    while i < len(ids):
        if tuple(ids[i:i + 2]) == pair:
            result.append(new_id)
            i += 2
        else:
            result.append(ids[i])
        i += 1
    return result


@RIGHT.to("best_pair")
def with_a_heap(words):
    import heapq

    return heapq.nsmallest(1, [(-count, pair) for pair, count in counted(words).items()])[0][1]


@RIGHT.to("best_pair")
def two_stable_sorts(words):
    counts = counted(words)
    return sorted(sorted(counts), key=counts.get, reverse=True)[0]


@RIGHT.to("best_pair")
def one_comparison_after_another(words):
    counts, best = {}, None
    for ids in words:
        for i in range(1, len(ids)):
            counts[ids[i - 1], ids[i]] = 0
    for pair in counts:
        for ids, times in words.items():
            counts[pair] += times * sum((a, b) == pair for a, b in zip(ids, ids[1:], strict=False))
        if best is None or counts[pair] > counts[best]:
            best = pair
        elif counts[pair] == counts[best] and pair < best:
            best = pair
    return best


def best_of(words, pairs):
    counts = Counter()
    for ids, times in words.items():
        for pair in pairs(ids):
            counts[pair] += times
    return min(counts, key=lambda pair: (-counts[pair], pair))


@WRONG.to("best_pair", "compared as text")
def ties_as_text(words):
    """Compare str(pair)."""
    counts = counted(words)
    return min(counts, key=lambda pair: (-counts[pair], str(pair)))


@WRONG.to("best_pair", "last id of a word and its first id")
def in_a_circle(words):
    """Pair the last id with the first, as roll does."""
    return best_of(words, lambda ids: zip(ids, (*ids[1:], ids[0]), strict=True))


@WRONG.to("best_pair", "first pair of each word")
def first_pairs(words):
    """Look at the beginning of each word only."""
    return best_of(words, lambda ids: [ids[:2]] if len(ids) > 1 else [])


@WRONG.to("best_pair", "two positions apart")
def one_between(words):
    """Skip one id."""
    return best_of(words, lambda ids: zip(ids, ids[2:], strict=False))


@WRONG.to("best_pair", "largest count of one word")
def largest_word_count(words):
    """Take the maximum over the words."""
    counts = Counter()
    for ids, times in words.items():
        for pair in pairwise(ids):
            counts[pair] = max(counts[pair], times)
    return min(counts, key=lambda pair: (-counts[pair], pair))


@WRONG.to("best_pair", "reverse order")
def turned_around(words):
    """Return (b, a)."""
    b, a = sorted_by_count_and_pair(words)
    return a, b


@WRONG.to("best_pair", "occur once are left out")
def rare_words_left_out(words):
    """Skip words that occur once."""
    return sorted_by_count_and_pair({ids: times for ids, times in words.items() if times >= 2})


@WRONG.to("best_pair", "smaller sum")
def smallest_sum(words):
    """Compare the sums of equally frequent pairs."""
    counts = counted(words)
    return min(counts, key=lambda pair: (-counts[pair], sum(pair)))


@RIGHT.to("encode_word")
def with_a_list_of_ranks(ids, merges):
    ids = list(ids)
    while True:
        found = [(merges[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in merges]
        if not found:
            return ids
        new_id, i = min(found)
        ids = ids[:i] + [new_id] + ids[i + 2:]


@RIGHT.to("encode_word")
def with_reduce(ids, merges):
    from functools import reduce

    in_order = sorted(merges.items(), key=lambda item: item[1])
    return reduce(lambda ids, item: merged(ids, *item), in_order, ids)


@RIGHT.to("encode_word")
def recursive(ids, merges):
    known = known_pairs(ids, merges)
    if not known:
        return tuple(ids)
    pair = sorted(known, key=lambda pair: merges[pair])[0]
    return recursive(merged(ids, pair, merges[pair]), merges)


def encoded_by(ids, merges, choose):
    while pairs := known_pairs(ids, merges):
        pair = choose(pairs)
        ids = merged(ids, pair, merges[pair])
    return ids


@WRONG.to("encode_word", "rightmost")
def rightmost_first(ids, merges):
    """Begin at the end of the word."""
    return encoded_by(ids, merges, lambda pairs: pairs[-1])


@WRONG.to("encode_word", "largest ids")
def largest_pair(ids, merges):
    """Merge the largest pair."""
    return encoded_by(ids, merges, max)


@WRONG.to("encode_word", "longest token")
def longest_token_first(ids, merges):
    """Merge what makes the longest token."""
    length = {}
    for (a, b), new_id in merges.items():
        length[new_id] = length.get(a, 1) + length.get(b, 1)
    return encoded_by(ids, merges, lambda pairs: max(pairs, key=lambda p: length[merges[p]]))


@WRONG.to("encode_word", "rarest pair")
def rarest_pair_of_the_word(ids, merges):
    """Merge the rarest pair."""
    return encoded_by(ids, merges, lambda pairs: min(pairs, key=lambda p: (pairs.count(p),
                                                                           merges[p])))


@WRONG.to("encode_word", "order of their ids")
def merges_sorted_by_pair(ids, merges):
    """Sort the merges by their pairs."""
    for pair, new_id in sorted(merges.items()):
        ids = merged(ids, pair, new_id)
    return ids


@WRONG.to("encode_word", "collected once")
def pairs_of_the_bytes(ids, merges):
    """Look for known pairs at the beginning only."""
    for pair in sorted(known_pairs(ids, merges), key=merges.get):
        ids = merged(ids, pair, merges[pair])
    return ids


@WRONG.to("encode_word", "numbers of the merges")
def numbered_from_0(ids, merges):
    """Use the place in the dict as the id."""
    numbers = {new_id: n for n, new_id in enumerate(merges.values())}
    return [numbers.get(i, i) for i in in_the_order_learned(ids, merges)]


@RIGHT.to("stream")
def what_is_new_in_the_text(tokens):
    data, done, texts = b"", 0, []
    for token in tokens:
        data += token
        text = data.decode("utf-8", "ignore")
        texts.append(text[done:])
        done = len(text)
    return texts


@RIGHT.to("stream")
def by_shortening(tokens):
    texts, rest = [], b""
    for token in tokens:
        rest += token
        for end in range(len(rest), -1, -1):
            try:
                texts.append(rest[:end].decode())
            except UnicodeDecodeError:
                continue
            rest = rest[end:]
            break
    return texts


@RIGHT.to("stream")
def by_iterdecode(tokens):
    def generate():
        decoder = codecs.lookup("utf-8").incrementaldecoder(errors="strict")
        yield from (decoder.decode(token, final=False) for token in tokens)

    return tuple(generate())


@WRONG.to("stream", "ASCII")
def ascii_only(tokens):
    """Decode as ASCII."""
    return [token.decode("ascii", errors="ignore") for token in tokens]


@WRONG.to("stream", "escape like \\xc3")
def escapes(tokens):
    """Let the decoder write escapes."""
    return [token.decode(errors="backslashreplace") for token in tokens]


@WRONG.to("stream", "every � is taken out")
def marks_removed(tokens):
    """Decode with marks, and remove them."""
    return [token.decode(errors="replace").replace("�", "") for token in tokens]


@WRONG.to("stream", "never shown")
def new_part_of_a_text_with_marks(tokens):
    """Cut off what was shown, although it had a mark in it."""
    data, done, texts = b"", 0, []
    for token in tokens:
        data += token
        text = data.decode("utf-8", "replace")
        texts.append(text[done:])
        done = len(text)
    return texts


@WRONG.to("stream", "one text too many at the end")
def flushed_at_the_end(tokens):
    """Add what the decoder still holds."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(token) for token in tokens] + [decoder.decode(b"", final=True)]


@WRONG.to("stream", "for each byte")
def byte_by_byte(tokens):
    """Return a text for each byte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(bytes([byte])) for token in tokens for byte in token]


@WRONG.to("stream", "spaces are taken away")
def stripped(tokens):
    """Strip the texts."""
    return [text.strip() for text in with_an_incremental_decoder(tokens)]


@WRONG.to("merge", "for ids", "is right")
def at_most_twice(ids, pair, new_id):
    """Stop after two merges."""
    result, i = [], 0
    while i < len(ids):
        found = tuple(ids[i:i + 2]) == pair and len(ids[:i]) - len(result) < 2
        result.append(new_id if found else ids[i])
        i += 1 + found
    return result


@WRONG.to("stream", "for tokens", "is right")
def characters_of_two_bytes(tokens):
    """Hold one byte back at most."""
    rest, texts = b"", []
    for token in tokens:
        rest += token
        half = bool(rest) and rest[-1] >= 0xC0
        texts.append(rest[:len(rest) - half].decode(errors="replace"))
        rest = rest[len(rest) - half:]
    return texts
