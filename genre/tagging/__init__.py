"""From audio to ranked genres with a saved model, for one file or a collection.

Enters: addresses of audio files and of models. Leaves: tags, tables, and genres written into files.
Knows nothing of training.
"""
