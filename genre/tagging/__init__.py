"""From audio to ranked genres with saved models, for one file or a collection.

Input: addresses of audio files and of models. Output: tags, tables, and genres written into files.
Independent of training.

    tagger           `Tagger`, `Tags`, `Moment`: the public interface
    audio_files      the files to tag
    tag_table        the rows of a collection's files on disk, so that a run can resume
    tag_rows         the columns of a row, and how a file becomes one
    row_files        rows of several Parquet files in any order
    known_contents   the contents that have tags, so that a copy of a file is not decoded
    tag_owner        the models whose tags a folder holds
    albums           one genre for the tracks of an album
    result_tables    the tables made from these rows
    file_tags        genres in the files' own tags
    byte_delta       the bytes of a file before it was written, in terms of those after
    tag_fields       the field of each container that holds them
    written_table    what was written into which file, to take it back
"""
