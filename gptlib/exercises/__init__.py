"""The checks of each chapter's exercises, one file a chapter.

In a notebook a check is one call, which prints one line and never stops the notebook:

    from gptlib.exercises import bigram as exercises
    exercises.check_cross_entropy(cross_entropy)
"""
