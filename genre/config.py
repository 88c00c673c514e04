"""The schema of every setting: its type, default, range and meaning.

`load` merges defaults, a YAML file and `key=value` overrides, and refuses what it does not know.
Settings that belong to one architecture or one corpus are in its module (`genre/architectures/*.py`,
`genre/corpora/*.py`, class `Params`) and are reached as `models.<name>.*` and `corpus.params.*`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genre import grammar, registry
from genre.errors import ConfigError

S = TypeVar("S", bound="Settings")

_SHORT = {"init_from": "train.init_from"}  # keys that may be written without their section, like `model`


class Settings(BaseModel):
    """A group of settings: unknown keys are refused, values are checked, nothing changes later."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True, protected_namespaces=()
    )


class CorpusSettings(Settings):
    kind: str = Field("synthetic", description="which corpus: one of genre/corpora/")
    root: str = Field("", description="folder or address of the music (table: of the CSV or Parquet file)")
    split: Literal["auto", "official", "random"] = Field(
        "auto", description="official: the corpus's published split; random: by genre and group; auto: official if any"
    )
    valid_fraction: float = Field(0.15, gt=0, lt=0.5, description="share of groups for validation (random split)")
    test_fraction: float = Field(0.2, gt=0, lt=0.5, description="share of groups for the test (random split)")
    split_seed: int = Field(0, ge=0, description="draws another random split")
    params: dict[str, Any] = Field({}, description="settings of this kind of corpus alone")


class AudioSettings(Settings):
    """What makes a waveform out of a file. Part of the features' fingerprint."""

    sample_rate: int = Field(22050, ge=4000, le=192000, description="Hz after resampling")
    clip_seconds: float = Field(
        30.0, gt=0.1, le=600, description="length of a clip; shorter tracks are repeated to fill"
    )
    max_clips: int = Field(0, ge=0, description="clips kept of a long track, from its start; 0 keeps all")
    min_seconds: float = Field(1.0, ge=0, description="less than this after trimming is rejected as too_short")
    trim_db: float = Field(60.0, gt=0, description="leading and trailing parts this far below the peak are silence")


class SpectrogramSettings(Settings):
    """What makes a log-mel spectrogram out of a waveform. Part of the features' fingerprint."""

    n_fft: int = Field(2048, ge=64, le=32768, description="samples in a frame")
    hop_length: int = Field(512, ge=16, le=32768, description="samples between frames")
    n_mels: int = Field(128, ge=8, le=512, description="mel bands")
    f_min: float = Field(0.0, ge=0, description="Hz, lower edge of the lowest band")
    f_max: float | None = Field(None, gt=0, description="Hz, upper edge of the highest band; none: half the rate")
    range_db: float = Field(80.0, ge=20, le=160, description="dB kept below each clip's loudest point")


class PrepareSettings(Settings):
    tracks_per_block: int = Field(64, ge=1, le=10000, description="tracks of a block, decoded into one Parquet file")
    file_timeout_s: float = Field(120.0, gt=0, le=86400, description="seconds one file may take before it is rejected")
    max_file_memory_mb: int = Field(
        4096, ge=0, description="private memory of a decoding process; a file that needs more is rejected; 0: no limit"
    )
    max_track_seconds: float = Field(7200.0, gt=0, description="a longer declared length is refused before decoding")
    min_decoded_fraction: float = Field(
        0.5, ge=0, le=1, description="a truncated file is kept when this share of its declared length decodes"
    )
    max_reject_fraction: float = Field(0.2, ge=0, le=1, description="more rejects than this fail the job, at its end")
    verify_content: bool = Field(
        False, description="read every file again and decode those whose content changed behind equal size and time"
    )
    retry_rejects: bool = Field(
        False, description="decode rejected files again, for example after time-outs on a busy machine"
    )


class ModelSettings(Settings):
    name: str = Field("cnn", description="architecture: one of genre/architectures/")
    path: str = Field(
        "",
        description="a saved model's folder or exported .onnx file, several with commas; empty: the leaderboard's best",
    )


class TrainSettings(Settings):
    epochs: int = Field(30, ge=1, description="passes over all of the training music, at most")
    batch_size: int = Field(32, ge=1, description="windows in a step, over all workers")
    window_seconds: float = Field(7.5, gt=0, description="length of the windows that the model sees; at most a clip's")
    windows_per_clip: int = Field(
        0, ge=0, description="random windows cut from each clip in an epoch; 0: as many as its length holds"
    )
    eval_windows: int = Field(8, ge=1, description="evenly spaced windows of a clip averaged in evaluation")
    learning_rate: float = Field(3e-3, gt=0, le=1, description="peak of the one-cycle schedule (AdamW)")
    weight_decay: float = Field(0.02, ge=0, description="AdamW decay, on weight matrices and kernels only")
    warmup: float = Field(0.2, ge=0, lt=1, description="share of the steps spent rising to the peak rate")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="mass spread over the other classes")
    class_weights: bool = Field(False, description="weigh the loss by inverse class frequency")
    mixup: float = Field(0.3, ge=0, description="Beta(a, a) of mixup; 0 is off")
    gain_db: float = Field(3.0, ge=0, description="random level, uniform in +- this many dB")
    equaliser_db: float = Field(4.0, ge=0, description="random smooth gain over frequency, within +- this many dB")
    mixstyle: float = Field(
        0.5, ge=0, le=1, description="share of batches whose windows exchange their mean and deviation over time"
    )
    time_mask: float = Field(0.15, ge=0, le=0.9, description="longest masked share of a window's frames (two masks)")
    mel_mask: float = Field(0.15, ge=0, le=0.9, description="widest masked share of the mel bands (two masks)")
    clip_norm: float = Field(1.0, ge=0, description="gradient norm limit; 0 is off")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights used in evaluation; 0 is off")
    patience: int = Field(0, ge=0, description="epochs without a better validation macro F1 before stopping; 0 is off")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the device computes it natively"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the GPU where there is one")
    workers: int = Field(1, ge=1, description="training processes (one per GPU, or several on CPUs)")
    init_from: str = Field(
        "", description="folder of a saved model to start from, on other genres or more music; also init_from="
    )
    freeze: bool = Field(False, description="with init_from: only the last layer learns")
    resume: bool = Field(True, description="resume from the last checkpoint of the same run")


class TuneSettings(Settings):
    architectures: list[str] = Field([], description="which to compare; empty: all of genre/architectures/")
    trials: int = Field(8, ge=1, description="configurations tried per architecture")
    sampler: Literal["random", "tpe"] = Field("random", description="tpe proposes from earlier trials (needs Optuna)")
    minutes: float = Field(
        0.0,
        ge=0,
        description="time of the complete search with finals and judging, shared by the architectures; 0: no limit",
    )
    grace_epochs: int = Field(5, ge=1, description="no trial is stopped before this epoch")
    reduction: float = Field(3.0, gt=1, description="of this many trials of an architecture, one continues")
    seeds: int = Field(3, ge=1, description="trainings of each best configuration; the search did the first")
    robustness: bool = Field(True, description="score the models on worse audio of the test tracks as well")
    concurrent: int = Field(0, ge=0, description="trials at a time; 0: as many as the cluster has room for")
    workers_per_trial: int = Field(1, ge=1, description="processes that train a trial together, on one machine or many")
    cpus_per_trial: float = Field(1.0, gt=0, description="CPUs of a trial (and its torch threads), for each worker")
    gpus_per_trial: float | None = Field(
        None, ge=0, description="GPUs of a trial, for each worker; none: a quarter (one each for several workers)"
    )
    space: dict[str, dict[str, Any]] = Field({}, description="replaces parts of an architecture's search space")
    mlflow: str = Field("", description="MLflow tracking server or database to log trials to (needs genre[mlflow])")


class EvaluateSettings(Settings):
    split: Literal["train", "valid", "test"] = Field("test", description="which split to score saved models on")
    features: str = Field("", description="features folder to score on; empty: OUTPUT/features")


class LeaderboardSettings(Settings):
    compare: list[str] = Field([], description="outputs whose leaderboards are put into one")


class TagSettings(Settings):
    top_k: int = Field(3, ge=1, description="genres listed for each file")
    precision: float = Field(
        0.8, ge=0, lt=1, description="share of right answers a named genre must promise; else 'unknown'; 0 names all"
    )
    batch_files: int = Field(16, ge=1, description="files decoded by one task")
    write_genres: Literal["never", "preview", "write"] = Field(
        "never",
        description="write the genre into the files' own tags where the model is confident; preview: only list it",
    )
    replace_genres: bool = Field(False, description="write over a genre that a file already has")


class ExplainSettings(Settings):
    genre: str = Field("", description="which genre's reasons to show; empty: the best one of each file")
    steps: int = Field(16, ge=1, le=256, description="points of the path from the mean spectrogram to the music")
    max_seconds: float = Field(120.0, gt=0, description="music explained of each file, from its start")


class ServeSettings(Settings):
    port: int = Field(8000, ge=1, le=65535, description="of this machine alone; nothing else can connect")
    max_upload_mb: float = Field(64.0, gt=0, description="a larger upload is refused")
    upload_timeout_s: float = Field(60.0, gt=0, description="seconds an upload may take")
    replicas: int = Field(1, ge=1, description="processes that answer, a CPU each")


class ClusterSettings(Settings):
    cpus: int = Field(0, ge=0, description="CPUs that a Ray started here may use; 0: all of this machine's")
    object_store_mb: int = Field(0, ge=0, description="object store of a Ray started here; 0: Ray's default")


class Config(Settings):
    output: str = Field("outputs/run", description="folder or address where everything of a run goes")
    inputs: str = Field("", description="file, folder or address of the music to tag")
    seed: int = Field(0, ge=0, description="seed of weights, windows and augmentation")
    corpus: CorpusSettings = CorpusSettings()
    audio: AudioSettings = AudioSettings()
    spectrogram: SpectrogramSettings = SpectrogramSettings()
    prepare: PrepareSettings = PrepareSettings()
    model: ModelSettings = ModelSettings()
    models: dict[str, dict[str, Any]] = Field({}, description="settings of single architectures: models.cnn.width=32")
    train: TrainSettings = TrainSettings()
    tune: TuneSettings = TuneSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    leaderboard: LeaderboardSettings = LeaderboardSettings()
    tag: TagSettings = TagSettings()
    explain: ExplainSettings = ExplainSettings()
    serve: ServeSettings = ServeSettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _cross_check(self) -> Config:
        require_known("model.name", self.model.name, registry.names("genre.architectures"))
        require_known("corpus.kind", self.corpus.kind, registry.names("genre.corpora"))
        for key, found in (
            ("models", self.models),
            ("tune.architectures", self.tune.architectures),
            ("tune.space", self.tune.space),
        ):
            for name in found:
                require_known(key, name, registry.names("genre.architectures"))
        half = self.audio.sample_rate / 2
        if (self.spectrogram.f_max or half) > half:
            raise ConfigError(
                f"spectrogram.f_max={self.spectrogram.f_max} is above half of audio.sample_rate; use {half}"
            )
        if (self.spectrogram.f_max or half) <= self.spectrogram.f_min:
            raise ConfigError(f"spectrogram.f_min={self.spectrogram.f_min} is not below f_max; use 0")
        if self.corpus.valid_fraction + self.corpus.test_fraction >= 0.9:
            raise ConfigError(
                "corpus.valid_fraction + corpus.test_fraction leave less than 0.1 for training; lower one"
            )
        return self


def require_known(key: str, value: str, known: Iterable[str]) -> None:
    """Raise `ConfigError` naming the nearest known value unless `value` is one of `known`."""
    known = list(known)
    if value not in known:
        raise ConfigError(f"{key}: {value!r} is not known; {grammar.nearest(value, known)}")


def load(path: str | None = None, overrides: Iterable[str] = ()) -> Config:
    """Defaults, then the YAML file at `path`, then `key=value` overrides with dotted keys.

    An override's value is taken as it is where the setting is a text, and read as YAML where it is not.
    Raises `ConfigError` for an unreadable file, an unknown key or a value out of range.
    """
    merged: dict[str, Any] = {}
    if path:
        merged = _read_yaml(path)
        if isinstance(merged.get("model"), str):
            merged["model"] = {_model_key(merged["model"]): merged["model"]}
    settings = [_split(text) for text in overrides]
    # what kind of corpus it is tells which of its settings are texts
    for key, text in sorted(settings, key=lambda setting: setting[0].startswith("corpus.params.")):
        keys = (f"model.{_model_key(text)}" if key == "model" else _SHORT.get(key, key)).split(".")
        try:
            value = grammar.value(text, _kind(keys, merged))
        except ValueError:
            raise ConfigError(f"{key}={text}: the value is not YAML; quote the texts in it") from None
        _assign(merged, keys, value)
    return validate(Config, merged)


def validate(cls: type[S], values: Mapping[str, Any], prefix: str = "") -> S:
    """`values` as settings of type `cls`, or a one-line `ConfigError` that names the key."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(_explain(error, cls, prefix)) from None


def describe(settings: Settings, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield every key of `settings` as (dotted key, value as the command line takes it, meaning)."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from describe(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value), field.description or ""


def fingerprint(*sections: Settings | Mapping[str, Any]) -> str:
    """16 hex digits that change whenever any resolved value in `sections` changes."""
    plain = [s.model_dump(mode="json") if isinstance(s, Settings) else dict(s) for s in sections]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def differences(expected: dict[str, Any], found: dict[str, Any], prefix: str = "") -> list[str]:
    """Each setting that differs, as 'key is x, expected y'."""
    lines = []
    for key in sorted(expected.keys() | found.keys()):
        left, right = expected.get(key), found.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            lines += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key} is {right}, expected {left}")
    return lines


def to_yaml(config: Settings) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _model_key(value: str) -> str:
    """`model=crnn` names an architecture, `model=runs/a/models/crnn` is the path of a saved model."""
    return "name" if value in registry.names("genre.architectures") else "path"


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"--config {path}: cannot be read ({error.strerror}); the shipped ones are in configs/"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not YAML ({' '.join(str(error).split())})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path}: holds a {type(content).__name__}; write 'section:' lines with keys below")
    return content


def _split(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found:
        raise ConfigError(f"{text!r} is not a setting; write key=value, for example output=outputs/run")
    return key.strip(), value


def _kind(keys: list[str], merged: Mapping[str, Any]) -> Any:
    """The type of the setting at these keys; those of a corpus or an architecture are declared in its module."""
    match keys:
        case ["corpus", "params", *below] if below:
            corpus = merged.get("corpus")
            kind = corpus.get("kind") if isinstance(corpus, dict) else None
            package, name = "genre.corpora", kind or CorpusSettings().kind
        case ["models", name, *below] if below:
            package = "genre.architectures"
        case _:
            return grammar.annotation(Config, keys)
    return grammar.annotation(registry.load(package, name).Params, below) if name in registry.names(package) else Any


def _assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for depth, key in enumerate(keys[:-1]):
        branch = tree.setdefault(key, {})
        if not isinstance(branch, dict):
            raise ConfigError(
                f"{'.'.join(keys)}: {'.'.join(keys[: depth + 1])} is a single value, it has no keys below"
            )
        tree = branch
    tree[keys[-1]] = value


def _explain(error: ValidationError, cls: type[Settings], prefix: str) -> str:
    """The first problem of a pydantic error in this project's one-line grammar."""
    first = error.errors()[0]
    key = prefix + ".".join(str(part) for part in first["loc"])
    context = first.get("ctx", {})
    if first["type"] == "value_error":  # a cross-check that already speaks for itself
        return str(context["error"])
    if first["type"] == "extra_forbidden":
        keys, below = [str(part) for part in first["loc"]], first.get("input")
        while isinstance(below, dict) and below:  # an unknown section: what was written below it tells which is meant
            name, below = next(iter(below.items()))
            keys.append(str(name))
        return f"unknown key {prefix + '.'.join(keys)!r}; {grammar.nearest_key(cls, keys, prefix)}"
    found = json.dumps(first.get("input"), default=str)
    if first["type"].startswith("model_"):
        return f"{key}: found {found}; it is a section, set {key}.KEY for one of its keys"
    if first["type"] == "list_type":
        return f"{key}: found {found}; write a list: [{first.get('input')}]"
    if first["type"] == "literal_error":
        return f"{key}: found {found}; use {context['expected']}"
    for bound in ("ge", "le", "gt", "lt"):
        if bound in context:
            sign = {"ge": "at least", "le": "at most", "gt": "more than", "lt": "less than"}[bound]
            return f"{key}: found {found}; must be {sign} {context[bound]}"
    return f"{key}: found {found}; {first['msg'][0].lower()}{first['msg'][1:]}"
