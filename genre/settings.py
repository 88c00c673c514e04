"""Every setting: its type, default, range and meaning. The descriptions are the reference documentation.

Settings of a single architecture or corpus are declared in its module (class `Params`) and are written as
`architectures.<name>.*` and `corpus.params.*`. `genre.config` reads settings from files and the command line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from genre import grammar, registry
from genre.errors import ConfigError

DEFAULT_PRECISION = 0.8  # of the genres that are reported


class Settings(BaseModel):
    """A group of settings. Unknown keys are rejected, values are checked, and an instance is immutable."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True, protected_namespaces=()
    )


class CorpusSettings(Settings):
    """Which music is prepared, and how it is split. Read by `prepare`, and `root` also by `fetch`."""

    kind: str = Field("synthetic", description="kind of corpus: the name of a module in genre/corpora/ or a plug-in")
    root: str = Field(
        "",
        description="folder or address of the music; for table, of the CSV or Parquet file; for `genre fetch`, "
        "the folder to write, by default data/KIND",
    )
    split: Literal["auto", "official", "random"] = Field(
        "auto",
        description="official: the corpus's published split; random: drawn by group or track; "
        "auto: official where one is published, else random",
    )
    valid_fraction: float = Field(
        0.15, gt=0, lt=0.5, description="random split: share of each genre's tracks for validation"
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=0.5, description="random split: share of each genre's tracks for the test"
    )
    split_seed: int = Field(0, ge=0, description="random split: seed")
    corrections: str = Field(
        "",
        description="table of corrected genres, such as OUTPUT/review/corrections.csv: they replace those of the "
        "corpus, and files that it does not list are added",
    )
    params: dict[str, Any] = Field(
        {}, description="settings of this kind of corpus, for example corpus.params.subset=small"
    )


class FetchSettings(Settings):
    """Which published corpus is downloaded. Read by `fetch`."""

    name: str = Field("", description="published corpus to download into corpus.root; empty: list them")
    table: str = Field(
        "", description="YAML file of corpora and mirrors to use instead of genre/fetching/published.yaml"
    )


class AudioSettings(Settings):
    """From a file to mono clips. Part of the features' fingerprint."""

    sample_rate: int = Field(22050, ge=4000, le=192000, description="sampling rate in Hz after resampling")
    clip_seconds: float = Field(
        30.0, gt=0.1, le=600, description="length of a clip in seconds; shorter tracks are repeated to fill it"
    )
    max_clips: int = Field(0, ge=0, description="maximum number of clips per track, from its start; 0: no limit")
    min_seconds: float = Field(1.0, ge=0, description="tracks that are shorter after trimming are rejected (too_short)")
    trim_db: float = Field(
        60.0, gt=0, description="silence removed at both ends: frames this many dB below the loudest one of the track"
    )


class SpectrogramSettings(Settings):
    """From a clip to its log-mel spectrogram. Part of the features' fingerprint."""

    n_fft: int = Field(2048, ge=64, le=32768, description="samples in an FFT frame")
    hop_length: int = Field(512, ge=16, le=32768, description="samples between the starts of two frames")
    n_mels: int = Field(128, ge=8, le=512, description="mel bands")
    f_min: float = Field(0.0, ge=0, description="lower edge of the lowest band in Hz")
    f_max: float | None = Field(
        None, gt=0, description="upper edge of the highest band in Hz; null: half the sampling rate"
    )
    range_db: float = Field(80.0, ge=20, le=160, description="dynamic range kept, in dB below the clip's maximum")


class PrepareSettings(Settings):
    """How `prepare` divides its work, and when it fails."""

    tracks_per_block: int = Field(
        64,
        ge=1,
        le=10000,
        description="maximum number of tracks per block, which one task decodes into one Parquet file",
    )
    max_reject_fraction: float = Field(
        0.2, ge=0, le=1, description="the job fails, with its results written, if a larger share of tracks is rejected"
    )
    verify_content: bool = Field(
        False,
        description="compare the content of every prepared file, and decode it again if it changed while its size and "
        "modification time did not",
    )


class DecodingSettings(Settings):
    """Limits on the decoding of one file, and whether rejects are decoded again. Read by every job that decodes."""

    file_timeout_s: float = Field(120.0, gt=0, le=86400, description="time limit in seconds for decoding one file")
    max_file_memory_mb: int = Field(
        4096, ge=0, description="limit in MiB on the private memory for decoding one file; 0: no limit"
    )
    max_track_seconds: float = Field(
        7200.0, gt=0, description="files that are longer, by their header or as decoded, are rejected (absurd_header)"
    )
    min_decoded_fraction: float = Field(
        0.5, ge=0, le=1, description="a truncated file is accepted if at least this share of its duration decodes"
    )
    retry_rejects: bool = Field(
        False, description="decode again the files that an earlier run rejected, for example after a timeout"
    )


class CacheSettings(Settings):
    """The copy of clips that each machine keeps on a local disk. Read by `train`, `pretrain`, `tune` and `evaluate`."""

    folder: str = Field(
        "",
        description="folder on a fast local disk of every machine; empty: $GENRE_CACHE, or a folder of the user in "
        "/var/tmp",
    )
    max_gb: float = Field(
        0.0,
        ge=0,
        description="maximum size of all copies of a machine in GB; the least recently used are deleted first; "
        "0: nine tenths of the disk space that is free or held by them",
    )


class TrainSettings(Settings):
    """How a network is trained. Read by `train`, `pretrain` and `tune`."""

    epochs: int = Field(30, ge=1, description="maximum number of passes over the training split")
    batch_size: int = Field(32, ge=1, description="windows per optimiser step, over all workers together")
    window_seconds: float = Field(
        7.5, gt=0, description="length in seconds of a window, the network's input; at most audio.clip_seconds"
    )
    windows_per_clip: int = Field(
        0, ge=0, description="random windows cut from each clip per epoch; 0: as many as fit into the clip"
    )
    window_norm: bool = Field(
        True, description="normalise each window by itself, half of it by band; init_from: as there"
    )
    eval_windows: int = Field(
        8, ge=1, description="evaluation: evenly spaced windows per clip, whose probabilities are averaged"
    )
    learning_rate: float = Field(3e-3, gt=0, le=1, description="maximum of the one-cycle schedule (AdamW)")
    weight_decay: float = Field(0.02, ge=0, description="AdamW weight decay, applied to weight matrices and kernels")
    warmup: float = Field(0.2, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="target probability that is spread evenly over all classes"
    )
    class_weights: bool = Field(False, description="weight the loss by inverse class frequency")
    mixup: float = Field(0.0, ge=0, description="mixup: weights are drawn from Beta(a, a) with this a; 0: off")
    gain_db: float = Field(3.0, ge=0, description="random gain, uniform in +- this many dB; 0: off")
    equaliser_db: float = Field(
        4.0, ge=0, description="random smooth gain over frequency, within +- this many dB; 0: off"
    )
    mixstyle: float = Field(
        0.5,
        ge=0,
        le=1,
        description="MixStyle: share of batches in which windows mix their statistics; 0: off",
    )
    time_mask: float = Field(
        0.0, ge=0, le=0.9, description="SpecAugment: maximum width of two masks in time, as a share of frames; 0: off"
    )
    mel_mask: float = Field(
        0.0, ge=0, le=0.9, description="SpecAugment: maximum width of two masks in frequency, as a share; 0: off"
    )
    clip_norm: float = Field(1.0, ge=0, description="maximum norm of the gradient; 0: no clipping")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the moving average of the weights, which is evaluated and saved; 0: off"
    )
    patience: int = Field(
        0, ge=0, description="stop after this many epochs without a better validation macro F1; 0: off"
    )
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="floating-point format; auto: bf16 where it is faster, else fp32",
    )
    workers: int = Field(1, ge=1, description="training processes: one per GPU, or several on CPUs")
    init_from: str = Field("", description="folder of a saved model or body to start from; also written as init_from=")
    freeze: bool = Field(False, description="with init_from: train only the last layer")
    resume: bool = Field(True, description="resume an interrupted run of the same settings from its last epoch")


class PretrainSettings(Settings):
    """How a body learns from music without labels. Read by `pretrain`, which takes all other settings from `train`."""

    pairs: Literal["track", "group"] = Field(
        "track",
        description="what makes two windows alike; track: one track; group: two tracks of an artist that has several",
    )
    temperature: float = Field(0.1, gt=0, le=10, description="divisor of the cosines in the loss (NT-Xent)")
    epochs: int = Field(100, ge=1, description="passes over the music; in place of train.epochs")
    batch_size: int = Field(
        128, ge=4, description="windows per step, over all workers: half as many pairs; in place of train.batch_size"
    )


class TuneSettings(Settings):
    """The search over architectures and their settings. Read by `tune`."""

    architectures: list[str] = Field([], description="architectures to compare; empty: all")
    trials: int = Field(8, ge=1, description="trials of each architecture; the first has the settings as given")
    sample: float = Field(
        1.0, gt=0, le=1, description="share of the tracks that trials see; the best settings are trained on all"
    )
    folds: int = Field(
        0, ge=0, le=100, description="score trials by folds of train and valid, published or by group; 0: by valid"
    )
    sampler: Literal["random", "tpe"] = Field(
        "random", description="random: independent draws; tpe: guided by earlier trials (needs the extra tpe)"
    )
    minutes: float = Field(
        0.0,
        ge=0,
        description="time limit of search, final trainings and evaluation together, shared equally by the "
        "architectures that can learn in it; 0: no limit",
    )
    grace_epochs: int = Field(5, ge=1, description="early stopping: no trial is stopped before this epoch")
    reduction: float = Field(3.0, gt=1, description="early stopping: at each level, one in this many trials continues")
    seeds: int = Field(3, ge=1, description="number of seeds for the best settings, including the trial's own")
    defaults: bool = Field(False, description="also train and judge the settings as given, with the same seeds")
    robustness: bool = Field(True, description="also score the models on degraded audio of test tracks")
    robustness_tracks: int = Field(
        300, ge=0, description="number of test tracks whose audio is degraded, each genre in proportion; 0: all"
    )
    concurrent: int = Field(0, ge=0, description="maximum number of trials at a time; 0: all that cluster.max_* allow")
    workers_per_trial: int = Field(1, ge=1, description="processes that train a trial, on one machine or several")
    cpus_per_trial: float = Field(1.0, gt=0, description="CPUs, and torch threads, for each worker of a trial")
    gpus_per_trial: float | None = Field(
        None,
        ge=0,
        description="GPUs for each worker; null: 0 without a GPU, 1 with several workers, else 0.25",
    )
    space: dict[str, dict[str, Any]] = Field(
        {}, description="changes to the search space, e.g. {cnn: {train.ema: {uniform: [0.0, 0.9]}}}"
    )
    mlflow: str = Field("", description="MLflow server or database that trials are logged to (needs the extra mlflow)")


class EvaluateSettings(Settings):
    """What `evaluate` scores."""

    split: Literal["train", "valid", "test"] = Field("test", description="split that the saved models are scored on")
    features: str = Field("", description="features folder to score on; empty: OUTPUT/features")
    folds: int = Field(
        0,
        ge=0,
        le=100,
        description="cross-validation: folds of all labelled tracks, the published ones or divided by group; one "
        "training for each model and fold; 0: score the saved models on evaluate.split",
    )


class LeaderboardSettings(Settings):
    """What `leaderboard` merges."""

    compare: list[str] = Field([], description="outputs whose leaderboards are merged into one report")


class TagSettings(Settings):
    """What `tag` writes."""

    top_k: int = Field(3, ge=1, description="number of genres listed for each file, the most probable first")
    batch_files: int = Field(16, ge=1, description="maximum number of files that a process tags at a time")
    album: Literal["ignore", "agree"] = Field(
        "ignore", description="agree: the tracks of an album that are unknown get its genre, if it is confident enough"
    )
    write_genres: Literal["never", "preview", "write"] = Field(
        "never",
        description="write the genre into the tags of the audio files, except where it is unknown; preview: only list "
        "the changes",
    )
    replace_genres: bool = Field(False, description="with write_genres: replace a genre that a file already has")
    field: Literal["genre", "comment", "grouping", "custom"] = Field(
        "genre",
        description="with write_genres: the field that is written; custom: GENRE_PREDICTED, which players ignore",
    )
    values: int = Field(
        1,
        ge=1,
        description="with write_genres: maximum number of genres written, all at least half as probable as the best",
    )
    replace: bool = Field(
        False,
        description="replace the tags in OUTPUT/tags that another model made, or this one before it was trained again",
    )
    undo: str = Field(
        "", description="restore the files listed in this written.csv, and do nothing else; also written as undo="
    )


class EmbedSettings(Settings):
    """What `embed` writes."""

    clips: bool = Field(False, description="also write a vector for each clip, with its place in the file")


class SimilarSettings(Settings):
    """What `similar` prints."""

    n: int = Field(20, ge=1, description="number of tracks to print, the nearest first; also written as n=")


class PlaylistSettings(Settings):
    """What `playlist` writes."""

    like: str = Field("", description="song that the tracks are similar to; also written as like=")
    genre: str = Field("", description="genre of the tracks, as predicted by the model; also written as genre=")
    minutes: float = Field(60.0, gt=0, description="length of the playlist; also written as minutes=")
    max_cosine: float = Field(
        0.998, gt=0, le=1, description="a track whose cosine to a chosen one is higher is a near-duplicate, left out"
    )
    file: str = Field("", description="playlist to write (.m3u8); empty: in OUTPUT/playlists, named after the choice")


class ExplainSettings(Settings):
    """What `explain` shows."""

    genre: str = Field("", description="genre to explain; empty: the most probable genre of each file")
    steps: int = Field(
        16, ge=1, le=256, description="integrated gradients: steps from the mean spectrogram (baseline) to the music"
    )
    max_seconds: float = Field(120.0, gt=0, description="explain this many seconds from the start of each file")


class ServeSettings(Settings):
    """The web page that `serve` runs."""

    port: int = Field(8000, ge=1, le=65535, description="port on the loopback interface; other machines cannot connect")
    max_upload_mb: float = Field(64.0, gt=0, description="size limit of an upload in MB")
    upload_timeout_s: float = Field(60.0, gt=0, description="time limit of an upload in seconds")
    replicas: int = Field(1, ge=1, description="processes that answer requests, each on one CPU")


class ReviewSettings(Settings):
    """The web page that `review` runs."""

    port: int = Field(8001, ge=1, le=65535, description="port on the loopback interface; other machines cannot connect")
    label_issues: str = Field(
        "",
        description="label_issues.csv of a leaderboard: these tracks come first; empty: that of OUTPUT/leaderboard, if "
        "it exists",
    )


class ClusterSettings(Settings):
    """Ray on this machine, ignored when a job joins the cluster of RAY_ADDRESS, and limits of any Ray."""

    cpus: int = Field(0, ge=0, description="CPUs for the local Ray that a job starts; 0: all CPUs of this machine")
    object_store_mb: int = Field(
        0, ge=0, description="size in MiB of the object store of the local Ray that a job starts; 0: Ray's default"
    )
    max_cpus: int = Field(
        0, ge=0, description="maximum number of CPUs that a job asks for; 0: as many as its work can use"
    )
    max_gpus: int | None = Field(
        None, ge=0, description="maximum number of GPUs that a job asks for; null: as many as its work can use; 0: none"
    )


class Config(Settings):
    """All settings: those that several jobs read, and a section for each topic."""

    output: str = Field("outputs/run", description="folder or address for everything that the jobs write and share")
    inputs: str = Field(
        "", description="file, folder or address of the music to read; for tag also -: paths from find -print0"
    )
    model: str = Field(
        "",
        description="folder of a saved model, or exported .onnx file; an ensemble: several, separated by commas; "
        "empty: the best in OUTPUT; evaluate: all of them; similar, playlist, review: those of their table",
    )
    architecture: str = Field(
        "cnn", description="network to train: the name of a module in genre/architectures/ or a plug-in"
    )
    teacher: str = Field(
        "",
        description="folder of a saved model, whose predictions train learns where tracks have no genre",
    )
    architectures: dict[str, dict[str, Any]] = Field(
        {}, description="settings of each architecture, for example architectures.cnn.width=32"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device that networks compute on; auto: a GPU where there is one"
    )
    min_precision: float = Field(
        DEFAULT_PRECISION,
        ge=0,
        lt=1,
        description="minimum share of correct genres among those reported, with 90 % confidence on held-out tracks; "
        "less certain files are 'unknown'; 0: report a genre for every file",
    )
    seed: int = Field(0, ge=0, description="seed of initial weights, windows, augmentation and folds")
    corpus: CorpusSettings = CorpusSettings()
    fetch: FetchSettings = FetchSettings()
    audio: AudioSettings = AudioSettings()
    spectrogram: SpectrogramSettings = SpectrogramSettings()
    prepare: PrepareSettings = PrepareSettings()
    decoding: DecodingSettings = DecodingSettings()
    cache: CacheSettings = CacheSettings()
    train: TrainSettings = TrainSettings()
    pretrain: PretrainSettings = PretrainSettings()
    tune: TuneSettings = TuneSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    leaderboard: LeaderboardSettings = LeaderboardSettings()
    tag: TagSettings = TagSettings()
    embed: EmbedSettings = EmbedSettings()
    similar: SimilarSettings = SimilarSettings()
    playlist: PlaylistSettings = PlaylistSettings()
    explain: ExplainSettings = ExplainSettings()
    serve: ServeSettings = ServeSettings()
    review: ReviewSettings = ReviewSettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _check_names(self) -> Config:
        """Raise `ConfigError` for the name of an architecture or a corpus that does not exist."""
        architectures = registry.names("genre.architectures")
        require_known("architecture", self.architecture, architectures)
        require_known("corpus.kind", self.corpus.kind, registry.names("genre.corpora"))
        for key, names in (
            ("architectures", self.architectures),
            ("tune.architectures", self.tune.architectures),
            ("tune.space", self.tune.space),
        ):
            for name in names:
                require_known(key, name, architectures)
        if self.model in architectures:
            raise ConfigError(
                f"model: {self.model!r} is an architecture, not a saved model; write "
                f"model={self.output.rstrip('/')}/models/{self.model}, or architecture={self.model} to train one"
            )
        return self

    @model_validator(mode="after")
    def _check_ranges(self) -> Config:
        """Raise `ConfigError` for values that contradict each other."""
        half = self.audio.sample_rate / 2
        if (self.spectrogram.f_max or half) > half:
            raise ConfigError(
                f"spectrogram.f_max={self.spectrogram.f_max} is above half of audio.sample_rate; use {half}"
            )
        if (self.spectrogram.f_max or half) <= self.spectrogram.f_min:
            raise ConfigError(f"spectrogram.f_min={self.spectrogram.f_min} is not below f_max; use 0")
        if self.evaluate.folds == 1:
            raise ConfigError(
                "evaluate.folds=1 leaves nothing to train on; use 2 or more, or 0 for no cross-validation"
            )
        if self.tune.folds == 1:
            raise ConfigError("tune.folds=1 leaves nothing to train on; use 2 or more, or 0 for one split")
        if self.tune.folds and self.tune.sample < 1:
            raise ConfigError(
                f"tune.sample={self.tune.sample:g} with tune.folds={self.tune.folds}: folds are for corpora too small "
                "to sample; leave one of them out"
            )
        if self.corpus.valid_fraction + self.corpus.test_fraction >= 0.9:
            raise ConfigError(
                "corpus.valid_fraction + corpus.test_fraction leave 0.1 or less for training; lower one of them"
            )
        return self


def require_known(key: str, value: str, known: Iterable[str]) -> None:
    """Raise `ConfigError`, naming the closest known value, unless `value` is in `known`."""
    known = list(known)
    if value not in known:
        raise ConfigError(f"{key}: {value!r} is not known; {grammar.nearest(value, known)}")
