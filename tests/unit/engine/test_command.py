"""The command line: its grammar, its help pages, its errors, and what it imports to answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from faulty_storage import behind, refusing

import genre
from genre import architectures, config, registry
from genre.settings import Config
from ray_jobs.engine import cli, command, jobs

HEAVY = {"torch", "ray", "librosa", "pandas", "numpy", "pyarrow", "sklearn", "scipy"}


def imports(*arguments: str) -> tuple[int, set[str], str]:
    """Run `genre ARGUMENTS` in a process of its own: its exit code, its top-level modules, what it printed."""
    code = (
        "import json, sys\n"
        "from ray_jobs.engine import command\n"
        "done = command.main(sys.argv[1:])\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)\n"
        "sys.exit(done)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    *said, modules = done.stderr.splitlines()
    return done.returncode, set(json.loads(modules)), done.stdout + "\n".join(said)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("tun",)])
def test_the_command_alone_imports_not_even_the_schema(arguments: tuple[str]) -> None:
    _, modules, _ = imports(*arguments)
    assert not modules & (HEAVY | {"pydantic", "yaml", "rich"})


@pytest.mark.parametrize("job", jobs.JOBS)
def test_help_of_a_job_imports_nothing_heavy(job: str) -> None:
    code, modules, said = imports(job, "--help")
    assert code == 0
    assert not modules & HEAVY
    assert said.startswith(f"usage: genre {job}")


@pytest.mark.parametrize("arguments", [["--help"], ["tune", "--help"], ["tune", "--help-all"], ["train", "--dry-run"]])
def test_a_reader_that_stops_early_is_no_error(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-m", "ray_jobs.engine.command", *arguments]
    done = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("setting", ["modle=cnn", "train.epoch=3", "train.epochs=0", "word"])
def test_a_wrong_setting_of_a_search_imports_nothing_heavy(setting: str) -> None:
    code, modules, said = imports("tune", setting)
    assert code == 2
    assert not modules & HEAVY
    assert said.startswith("error: ")


@pytest.mark.parametrize("job", [name for name, job in jobs.JOBS.items() if job.needs_features])
def test_a_job_without_features_says_so_before_it_imports_torch_and_ray(job: str, tmp_path: Path) -> None:
    code, modules, output = imports(job, f"output={tmp_path}")
    assert code == 1
    assert not modules & {"torch", "ray", "librosa", "pandas", "sklearn"}
    assert output.startswith("error: ")
    assert "no features here" in output


@pytest.mark.parametrize("job", [name for name, job in jobs.JOBS.items() if not job.forecast])
def test_dry_run_imports_neither_ray_nor_torch(job: str) -> None:
    code, modules, _ = imports(job, "--dry-run")
    assert code == 0
    assert not modules & {"torch", "ray", "librosa", "pandas", "sklearn"}


@pytest.mark.parametrize("job", jobs.JOBS)
def test_help_fits_a_screen_and_names_each_setting_that_the_job_reads(
    job: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    assert command.main([job, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\n") <= 47
    assert max(map(len, shown.splitlines())) <= 110
    for key in declared(job):
        section, _, name = key.rpartition(".")
        assert f"  {key}=" in shown or (f"  {section}." in shown and f"  {name}=" in shown)


def test_help_all_names_every_setting_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["tune", "--help-all"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    rows = list(config.describe(Config()))
    for name in architectures.names():
        rows += config.describe(registry.load("genre.architectures", name).Params(), f"architectures.{name}.")
    for kind in registry.names("genre.corpora"):
        rows += config.describe(registry.load("genre.corpora", kind).Params(), "corpus.params.")
    for key, default, meaning in rows:
        assert f" {key}={default} {meaning}" in f" {shown} "


def declared(job: str) -> set[str]:
    """The keys below what the job declares, each of which must exist."""
    keys = [key for key, _, _ in config.describe(Config())]
    found: set[str] = set()
    for wanted in jobs.JOBS[job].settings + jobs.JOBS[job].other_settings:
        below = {key for key in keys if key == wanted or key.startswith(f"{wanted}.")}
        assert below, wanted
        found |= below
    return found


def test_the_demo_reads_what_its_two_jobs_read() -> None:
    assert declared("demo") == declared("prepare") | declared("tune")


@pytest.mark.parametrize("job", jobs.JOBS)
def test_help_promises_a_forecast_and_a_price_where_the_job_has_them(
    job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([job, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    printed = "a forecast" if jobs.JOBS[job].forecast else "the configuration"
    assert f"--dry-run checks them and prints {printed}" in shown
    assert ("--price-per-core-hour" in shown) is jobs.JOBS[job].is_priced


@pytest.mark.parametrize("columns", [80, 100])
def test_the_list_of_jobs_fits_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert command.main(["--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= columns


def test_each_job_has_a_purpose_of_one_line_first() -> None:
    for name in jobs.JOBS:
        first, _, rest = jobs.purpose(name).partition("\n")
        assert first.endswith(".")
        assert not rest.strip() or rest.startswith("\n")


def test_the_demo_is_the_shipped_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["demo", "--dry-run", "seed=5"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    shipped = config.load(str(REPOSITORY / "configs/demo.yaml"), ["seed=5"])
    assert Config.model_validate(shown) == cli.check_plugins(shipped)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"genre {genre.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tun"], "unknown job 'tun'; did you mean 'tune'?"),
        (["leader-board"], "did you mean 'leaderboard'?"),
        (["dance"], "the jobs are fetch, prepare,"),
        (["--hlep"], "unknown option '--hlep'"),
        (["tune", "--configs", "x"], "unrecognized arguments: --configs; did you mean --config?"),
        (["tune", "--dryrun"], "unrecognized arguments: --dryrun; did you mean --dry-run?"),
        (
            ["tag", "--model", "x", "y.mp3"],
            "unrecognized arguments: --model; settings have no dashes: write model=MODEL",
        ),
        (["tag", "y.mp3", "--min-precision=0"], "settings have no dashes: write min_precision=0"),
        (["train", "--epochs=3"], "settings have no dashes: write train.epochs=3 or pretrain.epochs=3"),
        (["tune", "--quietly"], "unrecognized arguments: --quietly; `genre tune --help` shows the grammar"),
        (["tune", "config=configs/laptop.yaml"], "unknown key 'config'; write --config configs/laptop.yaml"),
        (["tag", "song.mp3", "config=my file.yaml"], "unknown key 'config'; write --config 'my file.yaml'"),
        (["prepare", "corpus.kind", "=", "tags"], "a setting has no spaces around =; write corpus.kind=tags"),
        (["prepare", "corpus.kind=", "tags"], "a setting has no spaces around =; write corpus.kind=tags"),
        (["tag", "song.mp3", "model", "=my model"], "a setting has no spaces around =; write 'model=my model'"),
        (["similar", "--stdin0"], "--stdin0 belongs to `tag` and `embed`; leave it out"),
        (
            ["tag", "song.mp3", "--stdin0"],
            "inputs: found 2 values, song.mp3 and -; name one, in quotes if its path has spaces",
        ),
        (["tune", "--config"], "expected one argument"),
        (["prepare", "train.epoch=1"], "did you mean 'train.epochs'"),
        (["prepare", "corpus.params.tracks=1"], "corpus.params.tracks"),
        (["train", "--dry-run", "architectures.cnn.widht=1"], "did you mean 'architectures.cnn.width'"),
        (["prepare", "--config", "nowhere.yaml"], "cannot be read"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_two(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 2
    output = capsys.readouterr().err
    assert output.startswith("error: ")
    assert says in output
    assert output.count("\n") == 1


def test_no_job_shows_the_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    assert "  prepare " in capsys.readouterr().err


def test_a_failed_job_is_one_line_and_exit_code_one(capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> None:
        raise RuntimeError("the disk\nis full")

    assert cli.reported(action, "genre prepare") == 1
    assert capsys.readouterr().err == (
        "error: RuntimeError: the disk is full; run again with --verbose for the traceback\n"
    )


@pytest.mark.parametrize("job", jobs.JOBS)
def test_an_interrupted_job_promises_to_resume_only_if_it_does(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> None:
        raise KeyboardInterrupt

    assert cli.reported(action, f"genre {job}") == 1
    starts_over = job in ("leaderboard", "similar", "playlist", "explain", "export", "serve", "review")
    then = "the same command starts from the beginning" if starts_over else "run the same command again to resume"
    assert capsys.readouterr().err == f"interrupted; {then}\n"


@pytest.mark.parametrize("job", ["prepare", "train", "tune", "tag"])
def test_a_dry_run_names_a_missing_bucket(
    job: str, bucket_server: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([job, "output=s3://misspelt/run", "--dry-run"]) == 2
    printed = capsys.readouterr().err
    assert printed == "error: output=s3://misspelt/run: the bucket misspelt does not exist; check the address\n"


def test_a_table_in_a_missing_bucket_is_not_called_damaged(
    bucket_server: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ["corpus.kind=table", "corpus.root=s3://misspelt/labels.csv"]
    assert command.main(["prepare", *table, f"output={tmp_path}/run", "--dry-run"]) == 2
    assert capsys.readouterr().err == (
        "error: corpus.root=s3://misspelt/labels.csv: the bucket misspelt does not exist; check the address\n"
    )


def test_a_storage_that_refuses_is_one_line_that_says_what_to_check(
    bucket_server: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with behind(bucket_server, refusing(400, "ExpiredToken", lambda request: True), monkeypatch):
        assert command.main(["evaluate", "output=s3://bucket/run"]) == 1
    output = capsys.readouterr().err
    assert output.startswith("error: the storage cannot be reached, or refuses (")
    assert "HTTP status 400" in output
    assert output.endswith("; check address, credentials and network, and run the same command again\n")
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    "message", ["Corrupt snappy compressed data.", "libcublas.so.12: cannot open shared object file"]
)
def test_another_error_of_the_system_is_not_one_of_the_storage(
    message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def action() -> None:
        raise OSError(message)

    assert cli.reported(action, "genre prepare") == 1
    assert capsys.readouterr().err == f"error: OSError: {message}; run again with --verbose for the traceback\n"


def test_help_of_a_corpus_names_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["prepare", "corpus.kind=table", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "with corpus.kind=table:" in shown
    assert "corpus.params.path_column=" in shown
    assert command.main(["help", "prepare"]) == 0
    assert "corpus.params.path_column=" not in capsys.readouterr().out
    assert command.main(["prepare", "corpus.kind=tabel", "--help"]) == 2
    assert "tabel" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["ray", "torch"])
def test_a_light_install_names_the_extra_that_a_job_needs(missing: str, tmp_path: Path) -> None:
    """The package is made impossible to import, as where it is not installed."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{missing!r}] = None\n")
    search = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    command = [sys.executable, "-m", "ray_jobs.engine.command", "tune"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": search}, check=False
    )
    assert done.returncode == 2
    remedy = "install it with pip install '.[train]' in the project's folder"
    assert done.stderr == f"error: `genre tune` needs {missing}, which is not installed; {remedy}\n"


def test_a_second_song_is_refused_rather_than_tagged_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["tag", "a.mp3", "b.mp3", "--dry-run"]) == 2
    assert capsys.readouterr().err == (
        "error: inputs: found 2 values, a.mp3 and b.mp3; name one, in quotes if its path has spaces\n"
    )


def test_a_path_with_spaces_needs_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Disco Duo").mkdir()
    (tmp_path / "Disco Duo/01 Disco.flac").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert command.main(["tag", "Disco", "Duo/01", "Disco.flac", "output=out"]) == 2
    assert capsys.readouterr().err == (
        "error: inputs: found 3 values, Disco and Duo/01 and Disco.flac; a path with spaces needs quotes: "
        "'Disco Duo/01 Disco.flac'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "unread"),
    [
        (["evaluate", "architecture=cnn", "train.epochs=3", "seed=1"], "architecture, train.epochs"),
        (["similar", "n=3", "a/b=c.mp3"], ""),
        (["prepare", "corpus={kind: folder}", "audio.clip_seconds=3"], ""),
        (["demo", "tune={trials: 1}"], ""),
        (["prepare", "tune={trials: 1}"], "tune"),
    ],
)
def test_settings_that_a_job_does_not_read_are_named(
    arguments: list[str], unread: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main([*arguments, f"output={tmp_path}", "--dry-run"])
    notes = [line.split(";")[0] for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert notes == ([f"note: {arguments[0]} does not read {unread}"] if unread else [])


@pytest.mark.parametrize(
    ("job", "setting", "section", "expected"),
    [
        ("similar", "n=3", "similar", {"n": 3}),
        ("train", "init_from=007", "train", {"init_from": "007"}),
        ("train", "train.init_from=a", "train", {"init_from": "a"}),
    ],
)
def test_a_short_key_sets_the_key_of_its_section(
    job: str, setting: str, section: str, expected: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([job, "--dry-run", setting]) == 0
    assert expected.items() <= yaml.safe_load(capsys.readouterr().out)[section].items()
