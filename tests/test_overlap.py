"""The longest copied stretch is the one that a naive search finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptlib.corpora.overlap import Copy, longest_copies, longest_copy

letters = st.text(alphabet="abü🙂", max_size=40)


def naive_length(sample, text):
    """Return the length of the longest stretch of the sample that stands in the text."""
    lengths = [j - i for i in range(len(sample)) for j in range(i + 1, len(sample) + 1)
               if sample[i:j] in text]
    return max(lengths, default=0)


@given(sample=letters, text=letters)
def test_the_length_is_that_of_a_naive_search(sample, text):
    copy = longest_copy(sample, text)
    assert copy.length == naive_length(sample, text)
    earlier = sample[:copy.start_in_sample + copy.length - 1]
    assert naive_length(earlier, text) < max(1, copy.length)
    stretch = sample[copy.start_in_sample:copy.start_in_sample + copy.length]
    assert text[copy.start_in_text:copy.start_in_text + copy.length] == stretch


def test_a_whole_copy_is_found_where_it_stands():
    assert longest_copy("not to", "to be or not to be") == Copy(6, 0, 9)


def test_of_two_copies_of_one_length_the_first_is_returned():
    assert longest_copy("no to", "to no") == Copy(2, 0, 3)


def test_several_samples_give_a_copy_each():
    assert longest_copies(["not", "x", "ü be 🙂"], "to be or not") == [
        Copy(3, 0, 9), Copy(0, 0, 0), Copy(4, 1, 2)]
    assert longest_copies([], "to be") == []


@pytest.mark.parametrize("text", ["süße Äpfel", "مشى الرجل", "ชายชราเดินช้าๆ", "🙂🌙⭐"])
def test_a_copy_is_measured_in_characters(text):
    assert longest_copy(f"1{text}2", f"3{text}4") == Copy(len(text), 1, 1)


def test_nothing_in_common():
    assert longest_copy("abc", "xyz") == longest_copy("", "xyz") == Copy(0, 0, 0)


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="sample=5 is int, it should be str"):
        longest_copy(5, "text")
    with pytest.raises(ValueError, match="samples='a text' is str, it should be a list"):
        longest_copies("a text", "text")
