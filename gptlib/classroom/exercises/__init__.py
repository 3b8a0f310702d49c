"""The checks of each chapter's exercises, one file for each chapter.

A check prints whether the function is right. It raises no exception, so the notebook goes on:

    from gptlib.classroom.exercises import bigram as exercises
    exercises.check_cross_entropy(cross_entropy)
"""
