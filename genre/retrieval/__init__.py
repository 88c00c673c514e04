"""From embeddings to similar tracks, playlists and the votes of neighbours.

Input: the rows of a tagged collection, or vectors. Output: the table of embeddings, the nearest tracks, playlists.
Independent of torch, training and reports.

    embedding_table   OUTPUT/embeddings: one vector for each track, read a few at a time
    nearest           exact search by cosine
    neighbours        the genres of tracks by a vote of the nearest training tracks
    playlist          tracks for some minutes, no two of an artist in succession
    m3u               a playlist as a file
"""
