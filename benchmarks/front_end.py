"""Compare the front end, from the bytes of a file to the stored spectrogram, with common alternatives.

    python benchmarks/front_end.py [--rounds 15] [--json front_end.json]

CPU time of one core. Each round measures some calls of both sides one after the other; the result is the median over
the rounds of the ratio within a round. A busy machine therefore changes the times and hardly the ratios. All run in
the environment of prepare's decoder processes: one thread, and freed memory is kept for the next clip, which makes
the librosa loop faster as well.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import librosa
import numpy as np
import soundfile
import soxr
import torch
import torchaudio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from genre.audio import recordings
from genre.audio.isolation import environment
from genre.audio.spectrogram import LogMel
from genre.corpora.synthetic.compose import compose
from genre.corpora.synthetic.instruments import SAMPLE_RATE
from genre.features.clips import StoredClip
from genre.features.preparing.tracks import ClipEncoder
from genre.features.recipe import Recipe
from genre.settings import AudioSettings, DecodingSettings, SpectrogramSettings

SECONDS = 30.0
AUDIO, SPECTROGRAM, LIMITS = AudioSettings(clip_seconds=SECONDS), SpectrogramSettings(), DecodingSettings()
CALLS = 5  # in a row, as in a loop over files: the first finds the other side's data in the processor's cache
MP3_QUALITY = (0.63, 0.0)  # compression_level of libsndfile: 128 and 320 kbit/s


@dataclass(frozen=True)
class Result:
    """Medians over the rounds: our CPU time and that of the alternative in ms, and the ratio within a round."""

    name: str
    ratio: float
    ours_ms: float
    theirs_ms: float


def librosa_loop(content: bytes) -> np.ndarray:
    """The common code with librosa."""
    wave, _ = librosa.load(io.BytesIO(content), sr=AUDIO.sample_rate)
    wave, _ = librosa.effects.trim(wave, top_db=AUDIO.trim_db)
    wave = librosa.util.normalize(wave)
    wave = librosa.util.fix_length(wave, size=round(SECONDS * AUDIO.sample_rate))
    mel = librosa.feature.melspectrogram(y=wave, sr=AUDIO.sample_rate, n_fft=2048, hop_length=512, n_mels=128)
    return np.asarray(librosa.power_to_db(mel, ref=np.max))


def front_end(content: bytes, encoder: ClipEncoder) -> list[StoredClip]:
    """The work of prepare on a file, without the two SHA-256 sums."""
    return encoder(recordings.load(content, AUDIO, LIMITS))


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> Result:
    ours(), theirs()
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
    ratio = statistics.median(slow / fast for fast, slow in pairs)
    fast, slow = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    return Result(name, ratio, fast, slow)


def _seconds(function: Callable[[], object]) -> float:
    begin = time.process_time()
    for _ in range(CALLS):
        function()
    return (time.process_time() - begin) / CALLS


def composed() -> np.ndarray:
    """Return a piece of the synthetic corpus, mono."""
    return compose("house", artist_seed=1, track_seed=2, seconds=SECONDS + 1)[: round(SECONDS * SAMPLE_RATE)]


def recorded(path: Path) -> np.ndarray:
    """Return a recording in mono, repeated to fill 30 s."""
    wave, _ = librosa.load(path, sr=SAMPLE_RATE)
    return np.resize(wave, round(SECONDS * SAMPLE_RATE))


def test_files(mono: np.ndarray) -> dict[str, bytes]:
    """Return music in common formats: mono at 22.05 kHz, stereo at 44.1 kHz."""
    wide = np.stack([mono, 0.7 * np.roll(mono, SAMPLE_RATE // 100)], axis=1)
    stereo = soxr.resample(wide, SAMPLE_RATE, 44100)
    stereo = 0.9 * stereo / np.abs(stereo).max()
    files = {
        "wav 22.05 kHz mono": _encoded(0.9 * mono / np.abs(mono).max(), 22050, format="WAV", subtype="PCM_16"),
        "wav 44.1 kHz stereo": _encoded(stereo, 44100, format="WAV", subtype="PCM_16"),
    }
    for quality in MP3_QUALITY:
        content = _encoded(stereo, 44100, format="MP3", bitrate_mode="CONSTANT", compression_level=quality)
        rate = len(content) * 8 / SECONDS / 1000
        files[f"mp3 44.1 kHz stereo, {rate:.0f} kbit/s"] = content
    files["mp3 44.1 kHz stereo, variable"] = _encoded(stereo, 44100, format="MP3")
    files["flac 44.1 kHz stereo"] = _encoded(stereo, 44100, format="FLAC", subtype="PCM_16")
    files["ogg 44.1 kHz stereo"] = _encoded(stereo, 44100, format="OGG", subtype="VORBIS")
    return files


def _encoded(samples: np.ndarray, rate: int, **form: object) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, samples, rate, **form)
    return target.getvalue()


def bytes_to_spectrogram(files: dict[str, bytes], rounds: int) -> list[Result]:
    encoder = ClipEncoder(Recipe(audio=AUDIO, spectrogram=SPECTROGRAM, decoding=LIMITS))
    return [
        compare(name, partial(front_end, content, encoder), partial(librosa_loop, content), rounds)
        for name, content in files.items()
    ]


def transform_alone(files: dict[str, bytes], rounds: int) -> list[Result]:
    """Compare the transform from waveform to log-mel, also with the bare Fourier transforms."""
    content = files["wav 22.05 kHz mono"]
    wave = recordings.cut(recordings.load(content, AUDIO, LIMITS), AUDIO)[0].samples
    log_mel = LogMel(SPECTROGRAM, AUDIO.sample_rate)
    torch.set_num_threads(1)
    mel = torchaudio.transforms.MelSpectrogram(
        AUDIO.sample_rate, 2048, hop_length=512, n_mels=128, norm="slaney", mel_scale="slaney", pad_mode="constant"
    )
    decibels = torchaudio.transforms.AmplitudeToDB("power")
    tensor = torch.from_numpy(wave)
    frames = np.zeros((128, 2048), np.float32) + wave[:2048]
    spectra = np.empty_like(frames)
    count = log_mel.frames(len(wave)) // len(frames)

    def bare() -> None:
        for _ in range(count):
            cv2.dft(frames, dst=spectra, flags=cv2.DFT_ROWS)

    def theirs() -> object:
        with torch.inference_mode():
            return decibels(mel(tensor))

    def librosa_alone() -> object:
        return librosa.power_to_db(librosa.feature.melspectrogram(y=wave, sr=AUDIO.sample_rate))

    return [
        compare("torchaudio MelSpectrogram", lambda: log_mel(wave), theirs, rounds),
        compare("librosa melspectrogram", lambda: log_mel(wave), librosa_alone, rounds),
        compare("the bare transforms", lambda: log_mel(wave), bare, rounds),
    ]


def hashing(files: dict[str, bytes], rounds: int) -> list[Result]:
    """Compare the front_end with the SHA-256 of the file, which prepare adds."""
    encoder = ClipEncoder(Recipe(audio=AUDIO, spectrogram=SPECTROGRAM, decoding=LIMITS))
    return [
        compare(f"SHA-256 of {name}", partial(front_end, content, encoder), partial(hashlib.sha256, content), rounds)
        for name, content in list(files.items())[:3]
    ]


def table(title: str, ours: str, results: list[Result]) -> str:
    lines = [title, f"{'times':>6}  {ours + ', ms':>10}  {'other, ms':>10}"]
    lines += [f"{r.ratio:6.2f}  {r.ours_ms:10.2f}  {r.theirs_ms:10.2f}  {r.name}" for r in results]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--music", type=Path, help="a recording to use; else a composed piece, whose spectrum is more difficult"
    )
    parser.add_argument("--json", type=Path, help="write the results here as well")
    options = parser.parse_args()
    files = test_files(recorded(options.music) if options.music else composed())
    sections = {
        "Bytes to stored spectrogram of a 30 s clip, against the librosa loop": bytes_to_spectrogram(
            files, options.rounds
        ),
        "Waveform to log-mel, against": transform_alone(files, 2 * options.rounds),
        "Time of the SHA-256 as a share of the front_end's": hashing(files, options.rounds),
    }
    for title, results in sections.items():
        print(table(title, "ours", results))
    if options.json:
        options.json.write_text(json.dumps({k: [vars(r) for r in v] for k, v in sections.items()}, indent=2) + "\n")


if __name__ == "__main__":
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:  # which libraries read when they are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], environment())
    main()
