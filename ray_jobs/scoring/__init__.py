"""Saved models scored on all machines: what `tune` ends with and `evaluate` does.

Input: features, and the addresses of models. Output: probabilities, scores and costs, and the leaderboard made of them.
Independent of the search.

    predictions        the probabilities of models for the tracks of a split
    baseline           the classical baseline
    neighbours         the vote of the nearest training tracks
    robustness         scores on changed audio
    scores             all of these for one split
    teacher            the genres that models predict for tracks without one, for another to learn from
    cross_validation   trainings on folds, each judged on the tracks that it held out
    judging            the leaderboard
"""
