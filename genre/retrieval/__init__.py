"""From embeddings of a collection to similar tracks and playlists.

Input: the rows of a tagged collection. Output: the table of embeddings, the nearest tracks of a song, playlists.
Independent of torch, training and reports.

    embedding_table   OUTPUT/embeddings: one vector for each track, read a few at a time
    nearest           exact search by cosine
    playlist          tracks for some minutes, in an order in which no artist follows himself
    m3u               a playlist as a file
"""
