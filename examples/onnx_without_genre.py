"""Genres of a song with an exported model and without the genre package: python onnx_without_genre.py MODEL SONG.

Needs: pip install numpy onnxruntime soundfile soxr
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile
import soxr

session = onnxruntime.InferenceSession(sys.argv[1])
facts = {}
for key, value in session.get_modelmeta().custom_metadata_map.items():
    try:
        facts[key] = json.loads(value)
    except ValueError:
        facts[key] = value

samples, rate = soundfile.read(sys.argv[2], dtype="float32", always_2d=True)
wave = soxr.resample(samples.mean(axis=1), rate, facts["sample_rate"], quality="HQ")
wave /= np.abs(wave).max()

hops = 1 + len(wave) // 512  # root mean square of frames of 2048 samples, 512 apart, with zeros beyond the ends
padded = np.pad(wave, (1024, 2048)).astype(np.float64)
power = np.array([np.mean(padded[512 * i : 512 * i + 2048] ** 2) for i in range(hops)])
loud = np.flatnonzero(power > power.max() * 10 ** (-facts["trim_db"] / 10))
wave = wave[512 * loud[0] : 512 * (loud[-1] + 1)]

length = round(facts["clip_seconds"] * facts["sample_rate"])
full, rest = divmod(len(wave), length)
count = full + (rest >= length / 2 or not full)
clips = np.stack([np.resize(wave[i * length : (i + 1) * length], length) for i in range(count)])

probabilities = session.run(None, {"waveform": clips.astype(np.float32)})[0].mean(axis=0)
calibrated = probabilities ** (1 / facts["temperature"])
calibrated /= calibrated.sum()
for index in np.argsort(-calibrated):
    print(f"{facts['classes'][index]:<16}{calibrated[index]:7.1%}")
if calibrated.max() < facts["unknown_below"][calibrated.argmax()]:
    print("unknown: the model is not sure enough")
