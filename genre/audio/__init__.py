"""From the bytes of a music file to log-mel spectrograms.

Input: bytes. Output: mono clips of one length and rate, and their spectrograms in dB, or an `AudioError`.
Independent of corpora, labels and folders of features. Decoding runs in a child process (`isolation`).
"""
