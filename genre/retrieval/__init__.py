"""From embeddings of a collection to similar tracks.

Input: the rows of a tagged collection. Output: the table of embeddings, the nearest tracks of a song.
Independent of torch, training and reports.

    embedding_table   OUTPUT/embeddings: one vector for each track, read a few at a time
    nearest           exact search by cosine
"""
