"""From the bytes of a music file to log-mel spectrograms.

Enters: bytes. Leaves: mono clips of one length and rate, and their spectrograms in dB, or an `AudioError`.
Knows nothing of corpora, labels or folders of features. Decoding runs in a child process (`isolation`).
"""
