"""Texts to train on: `load_corpus(name)`, and three corpora whose lowest possible loss is known."""

from gptlib.corpora.text import CORPORA, Corpus, load_corpus

__all__ = ["CORPORA", "Corpus", "load_corpus"]
