"""From the predictions for a collection to labels that a person has checked.

Input: the tables of a tagged collection and, where there is one, the list of suspicious labels. Output: the tracks to
check, the most doubtful first, and a CSV of path, genre and group that `corpus.corrections` names. Independent of
training and of how the tracks are shown.

    collection    the tracks in the order in which to review them: filters and pages
    corrections   OUTPUT/review/corrections.csv: the genre that a person gave to each file
    review        both together: decide, undo
"""
