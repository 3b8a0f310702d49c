"""The longest copied stretch is the one that a naive search finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptlib.corpora.overlap import Copy, longest_copy

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
    stretch = sample[copy.start_in_sample:copy.start_in_sample + copy.length]
    assert text[copy.start_in_text:copy.start_in_text + copy.length] == stretch


def test_a_whole_copy_is_found_where_it_stands():
    assert longest_copy("not to", "to be or not to be") == Copy(6, 0, 9)


def test_nothing_in_common():
    assert longest_copy("abc", "xyz") == longest_copy("", "xyz") == Copy(0, 0, 0)


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="sample=5 is int, it should be str"):
        longest_copy(5, "text")
