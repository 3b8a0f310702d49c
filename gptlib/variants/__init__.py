"""Variants of the GPT, from chapter 6 on. Each replaces one part of the model of chapter 4."""
