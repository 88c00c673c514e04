"""The settings that decide how a file becomes features, and their fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genre.config import fingerprint
from genre.features.schema import Shape
from genre.settings import AudioSettings, Config, DecodingSettings, Settings, SpectrogramSettings

# Part of the fingerprint: raise it whenever the same file and settings give other bytes than before.
FRONT_END_VERSION = 4


class Recipe(Settings):
    """Everything that decides how a file becomes features."""

    audio: AudioSettings
    spectrogram: SpectrogramSettings
    decoding: DecodingSettings

    @classmethod
    def of(cls, config: Config) -> Recipe:
        """Return the recipe of a configuration."""
        return cls(audio=config.audio, spectrogram=config.spectrogram, decoding=config.decoding)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], limits: DecodingSettings = DecodingSettings()) -> Recipe | None:
        """Return the recipe with the `settings` of a manifest or a model; None for precomputed spectrograms."""
        if "audio" not in settings:
            return None
        return cls(audio=settings["audio"], spectrogram=settings["spectrogram"], decoding=limits)

    def settings(self) -> dict[str, Any]:
        """Return the settings that the fingerprint covers, as a manifest holds them."""
        return self.model_dump(mode="json", include={"audio", "spectrogram"})

    def limits(self) -> dict[str, Any]:
        """Return the settings that decide which tracks are rejected: when they change, rejects are decoded again."""
        return self.decoding.model_dump(mode="json", exclude={"retry_rejects"})

    def fingerprint(self, version: int = FRONT_END_VERSION) -> str:
        """Return 16 hex digits that change with the version and with any setting that changes the features."""
        return fingerprint(self.audio, self.spectrogram, {"kernel": version})

    def shape(self) -> Shape:
        """Return the shape of the spectrograms."""
        samples = round(self.audio.clip_seconds * self.audio.sample_rate)
        hop = self.spectrogram.hop_length
        return Shape(
            bins=self.spectrogram.n_mels,
            frames=1 + samples // hop,
            range_db=self.spectrogram.range_db,
            frame_seconds=hop / self.audio.sample_rate,
        )
