"""From audio to ranked genres with saved models, for one file or a collection.

Input: addresses of audio files and of models. Output: tags, tables, and genres written into files.
Independent of training.

    tagger          `Tagger`, `Tags`, `Moment`: the public interface
    audio_files     the files to tag
    tag_table       the rows of a collection's files on disk, so that a run can resume
    tag_rows        the columns of a row, and how a file becomes one
    tag_owner       the models whose tags a folder holds
    result_tables   the tables made from these rows
    file_tags       genres in the files' own tags
"""
