"""From audio to ranked genres with saved models, for one file or a collection.

Input: addresses of audio files and of models. Output: tags, tables, and genres written into files.
Independent of training.
"""
