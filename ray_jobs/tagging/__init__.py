"""Tagging on all machines, and what the jobs on a tagged collection share.

Input: files, models, and the tables of a tagged collection. Output: rows of tags, genres written into files, and texts
for the terminal. Independent of training.

    distributed     files decoded and named by tasks and actors of Ray
    tag_report      the summary of `tag` on the terminal
    genre_writing   genres written into the files, and taken back
    queries         the track that `similar` and `playlist` start from
"""
