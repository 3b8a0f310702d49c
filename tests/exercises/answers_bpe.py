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
