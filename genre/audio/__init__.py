"""From the bytes of a music file to log-mel spectrograms.

Input: bytes. Output: mono clips of one length and rate, and their spectrograms in dB, or an `AudioError`.
Independent of corpora, labels and folders of features. Decoding runs in a child process (`isolation`).

    decoders, containers   bytes to blocks of samples; what headers declare
    members, tags          recordings inside Parquet and tar files; what files say of themselves
    recordings             bytes to a mono waveform and its clips
    spectrogram, kernels   clips to log-mel spectrograms; their compiled loops
    isolation, channel     a function in a child process; messages to it
    phases                 whether that process reads or decodes
    excerpt                the start of a file as a small MP3
"""
