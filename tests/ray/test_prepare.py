"""Preparing a folder of music: once, again, and after things changed. Most of it needs no Ray."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import damage
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY
from making import load
from music import InTurn, clip_rows, config_of, tables, write_music, write_song

from genre.errors import ArtifactError, ConfigError, GenreError, Reason
from genre.features import Features
from genre.features.preparing.finishing import finish
from genre.features.preparing.ledger import Ledger
from genre.features.preparing.scan import scan
from genre.features.recipe import Recipe
from genre.reviewing.corrections import Corrections
from genre.settings import ClusterSettings, Config, CorpusSettings
from genre.storage import Location
from ray_jobs.engine.blocks import Workers
from ray_jobs.prepare import prepare

TWO_CPUS = ClusterSettings(cpus=2, object_store_mb=100)


@pytest.fixture
def music(tmp_path: Path) -> Path:
    write_music(tmp_path / "music")
    return tmp_path / "music"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def in_turn(config: Config) -> int:
    """Prepare without Ray; how many tracks were read."""
    workers = InTurn()
    prepare(config, workers)
    return workers.tracks


def parts(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (output / "features/clips").iterdir()}


def run_job(config: Config, *settings: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    file = Path(config.output).parent / "run.json"
    file.write_text(config.model_dump_json())
    command = [sys.executable, "-m", "ray_jobs.prepare", "--config", str(file), *settings]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=clean | (env or {}), check=False)


class TestAgain:
    def test_nothing_to_do(self, music: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert in_turn(config_of(music, output)) == 18
        before = tables(output), parts(output), (output / "features/manifest.json").stat().st_mtime_ns
        assert in_turn(config_of(music, output)) == 0
        assert "18 already done, 0 to do" in capsys.readouterr().err
        assert (tables(output), parts(output), (output / "features/manifest.json").stat().st_mtime_ns) == before

    def test_added_files_alone_are_decoded(self, music: Path, output: Path, tmp_path: Path) -> None:
        in_turn(config_of(music, output))
        before = parts(output)
        write_song(music / "genre1" / "new.wav", 7)
        write_song(music / "genre9" / "other.wav", 8)
        assert in_turn(config_of(music, output)) == 2
        assert before.items() <= parts(output).items()
        in_turn(config_of(music, tmp_path / "fresh"))
        assert tables(output) == tables(tmp_path / "fresh")

    def test_removed_files_leave_nothing_behind(
        self, music: Path, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        in_turn(config_of(music, output))
        (music / "genre1/song03.wav").unlink()
        shutil.rmtree(music / "genre2")
        assert in_turn(config_of(music, output)) == 0
        assert "7 prepared earlier are deleted or changed" in capsys.readouterr().err
        in_turn(config_of(music, tmp_path / "fresh"))
        found, fresh = tables(output), tables(tmp_path / "fresh")
        for name in ("tracks", "rejects", "duplicates"):
            assert found[name] == fresh[name]
        clips = load(Features.open(Location.of(output / "features")), "train")["train"]
        assert "genre1/song03.wav" not in clips.track_ids.to_pylist()
        assert json.loads((output / "features/manifest.json").read_text())["classes"] == ["genre0", "genre1"]

    def test_another_corpus_does_not_take_the_place_of_the_first(
        self, music: Path, output: Path, tmp_path: Path
    ) -> None:
        """All of its clips would be deleted."""
        in_turn(config_of(music, output))
        before = parts(output)
        write_song(tmp_path / "other" / "genre0" / "stranger.wav", 1)
        with pytest.raises(ArtifactError, match=r"features holds [0-9]+ tracks of another corpus, such as genre0/"):
            in_turn(config_of(tmp_path / "other", output))
        assert parts(output) == before

    def test_corrected_genres_decode_nothing_again(
        self, music: Path, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = config_of(music, output)
        in_turn(config)
        before, clips = parts(output), clip_rows(output)
        corrections = Corrections(Location.of(tmp_path / "tagged/review/corrections.csv"))
        corrections.put(str(music / "genre0/song01.wav"), "Genre 1", None)
        corrections.put(str(music / "genre2/song03.wav"), "polka", None)
        corpus = config.corpus.model_copy(update={"corrections": str(corrections.file)})
        config = config.model_copy(update={"corpus": corpus})
        assert in_turn(config) == 0
        assert "corrections: 2 genres changed, 0 tracks added\n" in capsys.readouterr().err
        assert (parts(output), clip_rows(output)) == (before, clips)
        manifest = json.loads((output / "features/manifest.json").read_text())
        assert manifest["classes"] == ["genre0", "genre1", "genre2", "polka"]
        corrections.put(str(write_song(tmp_path / "mine/new.wav", 7)), "polka", None)
        assert in_turn(config) == 1
        tracks = (Location.of(output) / "features/tracks.parquet").read_table()
        genres = dict(zip(tracks["track_id"].to_pylist(), tracks["genre"].to_pylist(), strict=True))
        assert {name: genre for name, genre in genres.items() if not name.startswith(f"{genre}/")} == {
            "genre0/song01.wav": "genre1",
            "genre2/song03.wav": "polka",
            str(tmp_path / "mine/new.wav"): "polka",
        }
        assert before.items() <= parts(output).items()
        write_song(tmp_path / "other" / "genre0" / "stranger.wav", 1)
        elsewhere = config.corpus.model_copy(update={"root": str(tmp_path / "other")})
        with pytest.raises(ArtifactError, match="features holds 18 tracks of another corpus"):
            in_turn(config.model_copy(update={"corpus": elsewhere}))
        capsys.readouterr()
        in_turn(config_of(music, output))
        assert f"the genres of corpus.corrections={corrections.file}, which the last run had, are no longer used" in (
            capsys.readouterr().err
        )

    def test_genres_that_another_kind_of_corpus_does_not_know_are_counted(
        self, music: Path, output: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = config_of(music, output)
        in_turn(config)
        in_turn(config.model_copy(update={"corpus": CorpusSettings(kind="tags", root=str(music))}))
        assert (
            "prepare: 0 tracks with a genre, where corpus.kind=folder had 18; the same prepare command as before "
            "brings them back"
        ) in capsys.readouterr().err

    def test_changed_files_are_decoded_again(self, music: Path, output: Path) -> None:
        in_turn(config_of(music, output))
        write_song(music / "genre0/song01.wav", 1234, seconds=3.0)
        assert in_turn(config_of(music, output)) == 1
        folder = Location.of(output / "features")
        row = Features.open(folder).tracks().filter(pc.field("track_id") == "genre0/song01.wav").to_pylist()[0]
        assert row["clips"] == 3
        (loaded,) = load(Features.open(folder), row["split"]).values()
        # the leftovers of its first clips are passed over
        assert loaded.track_ids.take(loaded.track).to_pylist().count("genre0/song01.wav") == 3

    def test_touched_files_are_read_but_not_decoded(self, music: Path, output: Path, tmp_path: Path) -> None:
        in_turn(config_of(music, output))
        before = parts(output)
        touched = music / "genre0/song01.wav"
        os.utime(touched, (1, 1_000_000_000))
        workers = InTurn()
        prepare(config_of(music, output), workers)
        assert workers.tracks == 1
        assert parts(output) == before
        assert in_turn(config_of(music, output)) == 0  # the new time is known now
        in_turn(config_of(music, tmp_path / "fresh"))
        assert tables(output) == tables(tmp_path / "fresh")

    def test_content_tells_what_size_and_time_hide(self, music: Path, output: Path, tmp_path: Path) -> None:
        in_turn(config_of(music, output))
        sly = music / "genre0/song01.wav"
        before = sly.stat()
        write_song(sly, 999, seconds=0.6 + 0.5)
        os.utime(sly, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (sly.stat().st_size, sly.stat().st_mtime) == (before.st_size, before.st_mtime)
        assert in_turn(config_of(music, output)) == 0
        assert in_turn(config_of(music, output, verify_content=True)) == 18 + 1
        in_turn(config_of(music, tmp_path / "fresh"))
        found, fresh = tables(output), tables(tmp_path / "fresh")
        assert found["tracks"] == fresh["tracks"]
        clips = load(Features.open(Location.of(output / "features")), "train")["train"]
        assert len(clips) == len(load(Features.open(Location.of(tmp_path / "fresh/features")), "train")["train"])

    def test_a_lost_part_is_made_again(self, music: Path, output: Path, tmp_path: Path) -> None:
        in_turn(config_of(music, output))
        before = tables(output)
        lost = sorted((output / "features/clips").iterdir())[1]
        rows = len(pc.unique(pq.read_table(lost)["track_id"]))
        lost.unlink()
        assert in_turn(config_of(music, output)) == rows
        assert tables(output) == before

    def test_other_settings_never_mix(self, music: Path, output: Path) -> None:
        in_turn(config_of(music, output))
        other = config_of(music, output)
        other = other.model_copy(update={"audio": other.audio.model_copy(update={"trim_db": 30.0})})
        with pytest.raises(ArtifactError, match=r"audio.trim_db is 60.0, expected 30.0; choose another output"):
            in_turn(other)


class TestInterrupted:
    class Killed(InTurn):
        """Ends after some blocks, as a killed job does: without a message."""

        def map(self, *arguments: Any, **options: Any) -> Iterator[pa.Table]:
            for number, result in enumerate(super().map(*arguments, **options)):
                if number == 3:
                    raise KeyboardInterrupt
                yield result

    def test_finished_blocks_are_not_decoded_again(self, music: Path, output: Path, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            prepare(config_of(music, output), self.Killed())
        before = parts(output)
        assert len(before) == 4
        done = sum(len(pq.read_table(path)) for path in (output / "features/outcomes").iterdir())
        assert in_turn(config_of(music, output)) == 18 - done
        assert before.items() <= parts(output).items()
        in_turn(config_of(music, tmp_path / "fresh"))
        assert tables(output) == tables(tmp_path / "fresh")

    def test_other_settings_do_not_go_on_from_there(self, music: Path, output: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            prepare(config_of(music, output), self.Killed())
        other = config_of(music, output)
        other = other.model_copy(update={"audio": other.audio.model_copy(update={"trim_db": 30.0})})
        with pytest.raises(ArtifactError, match=r"audio.trim_db is 60.0, expected 30.0"):
            in_turn(other)


class TestRejects:
    def test_more_than_allowed_fail_the_job_after_it_is_done(
        self, music: Path, output: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for number in range(9):
            (music / "genre0" / f"bad{number}.wav").write_bytes(b"" if number % 3 else b"no music")
        with pytest.raises(GenreError, match=r"9 of 27 tracks were rejected, .*max_reject_fraction=0.3"):
            in_turn(config_of(music, output, max_reject_fraction=0.3))
        printed = capsys.readouterr().err
        assert "6 empty" in printed
        assert "3 unsupported" in printed
        rejects = pq.read_table(output / "features/rejects.parquet")
        assert rejects["reason"].to_pylist().count("empty") == 6
        assert in_turn(config_of(music, output, max_reject_fraction=0.5)) == 0

    def test_they_are_tried_again_when_asked_or_under_other_limits(self, music: Path, output: Path) -> None:
        (music / "genre0/bad.wav").write_bytes(b"no music")
        write_song(music / "genre0/long.wav", 1, seconds=9)
        assert in_turn(config_of(music, output, max_track_seconds=5)) == 20
        assert in_turn(config_of(music, output, max_track_seconds=5)) == 0
        assert in_turn(config_of(music, output, max_track_seconds=5, retry_rejects=True)) == 2
        assert in_turn(config_of(music, output, max_track_seconds=50)) == 2
        assert pq.read_table(output / "features/rejects.parquet")["track_id"].to_pylist() == ["genre0/bad.wav"]
        assert in_turn(config_of(music, output, max_track_seconds=5)) == 2  # the limit holds for what was kept too
        assert len(pq.read_table(output / "features/rejects.parquet")) == 2
        assert in_turn(config_of(music, output, max_track_seconds=5, file_timeout_s=9)) == 2
        assert in_turn(config_of(music, output, max_track_seconds=5, file_timeout_s=9)) == 0  # though nothing changed

    def test_a_pipe_is_one_of_them(self, music: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody writes to it, so that a child which opens it would wait forever."""
        hanging = music / "genre0/hang.wav"
        os.mkfifo(hanging)
        config = config_of(music, output, file_timeout_s=1.0)
        listed = scan(config.corpus)
        row = listed.slice(0, 1).to_pylist()[0]
        with_pipe = pa.concat_tables(
            [listed, pa.Table.from_pylist([row | {"track_id": "hang", "path": str(hanging)}], listed.schema)]
        )
        monkeypatch.setattr("ray_jobs.prepare.scan", lambda *_: with_pipe)
        in_turn(config)
        (reject,) = pq.read_table(output / "features/rejects.parquet").to_pylist()
        assert reject["reason"] == "unreadable"
        assert len(pq.read_table(output / "features/tracks.parquet")) == 18


class TestOutput:
    @pytest.mark.parametrize("below", ["", "run"])
    def test_one_that_cannot_be_written_is_told_before_the_corpus_is_composed(
        self, tmp_path: Path, below: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        config = config_of(tmp_path / "corpus", tmp_path / "file" / below)
        config = config.model_copy(update={"corpus": CorpusSettings(root=str(tmp_path / "corpus"))})
        with pytest.raises(ConfigError, match=r"output=.*file.* cannot be written \(.+\); choose another"):
            in_turn(config)
        assert not (tmp_path / "corpus").exists()
        assert "scanning" not in capsys.readouterr().err

    def test_asking_leaves_nothing_behind(self, music: Path, output: Path) -> None:
        in_turn(config_of(music, output))
        assert [path.name for path in output.iterdir()] == ["features"]


class TestConservation:
    def test_every_clip_is_there_once(self, music: Path, output: Path) -> None:
        in_turn(config_of(music, output))
        tracks = pq.read_table(output / "features/tracks.parquet")
        rows = clip_rows(output)
        assert len(rows) == pc.sum(tracks["clips"]).as_py()
        assert len(rows.group_by(["track_id", "clip"]).aggregate([])) == len(rows)

    def test_a_track_without_an_outcome_fails_the_job(
        self, music: Path, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = config_of(music, output)
        in_turn(config)
        write_song(music / "genre0/late.wav", 5)
        with pytest.raises(ArtifactError, match="19 tracks scanned, but 18 with features and 0 rejected"):
            finish(Ledger(Location.of(output / "features"), Recipe.of(config)), scan(config.corpus), config.corpus)

    def test_readers_are_told_while_it_is_unfinished(self, music: Path, output: Path) -> None:
        in_turn(config_of(music, output))
        (output / "features/manifest.json").unlink()
        with pytest.raises(ArtifactError, match="it was not finished, run prepare again"):
            load(Features.open(Location.of(output / "features")), "train")["train"]
        assert in_turn(config_of(music, output)) == 0
        assert len(load(Features.open(Location.of(output / "features")), "train")["train"])


@pytest.mark.slow
class TestDamage:
    def test_five_hundred_damaged_files_lose_nothing(self, tmp_path: Path, output: Path) -> None:
        damage.write(tmp_path / "music", 510)
        config = config_of(tmp_path / "music", output)
        assert in_turn(config) == 510
        tracks, rejects = (pq.read_table(output / f"features/{name}.parquet") for name in ("tracks", "rejects"))
        ids = tracks["track_id"].to_pylist() + rejects["track_id"].to_pylist()
        assert len(ids) == len(set(ids)) == 510
        assert len(clip_rows(output)) == pc.sum(tracks["clips"]).as_py()
        wanted = {"empty", "unsupported", "absurd_header", "silent", "non_finite", "truncated"}
        assert wanted <= set(rejects["reason"].to_pylist()) <= {reason.value for reason in Reason}
        assert pc.any(tracks["truncated"]).as_py()
        assert in_turn(config) == 0


class TestDuplicates:
    def test_they_are_reported_and_stay_together(
        self, music: Path, output: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for number in range(12):
            shutil.copy(music / "genre0/song02.wav", music / f"genre{number % 3}/copy{number}.wav")
        in_turn(config_of(music, output))
        printed = capsys.readouterr().err
        assert "12 tracks with the audio of another" in printed
        assert "1 set of copies with different genres" in printed
        assert "genre0/copy0.wav (genre0, " in printed
        copies = pq.read_table(output / "features/duplicates.parquet")
        assert len(copies) == 13
        assert len(pc.unique(copies["split"])) == 1
        counts = json.loads((output / "features/manifest.json").read_text())["counts"]["duplicates"]
        assert counts == {"sets": 1, "copies": 12, "near": 0, "of_several_genres": 1, "excluded": 0}


@pytest.mark.ray
class TestOnRay:
    def test_one_worker_two_workers_and_a_plain_loop_give_the_same_bytes(self, music: Path, tmp_path: Path) -> None:
        (music / "genre0/bad.wav").write_bytes(b"no music")
        in_turn(config_of(music, tmp_path / "loop"))
        for cpus in (1, 2):
            output = tmp_path / f"cpus{cpus}"
            started = time.monotonic()
            done = run_job(config_of(music, output), f"cluster.cpus={cpus}")
            assert done.returncode == 0, done.stderr
            assert tables(output) == tables(tmp_path / "loop")
            assert {p.name: p.read_bytes() for p in (output / "features/clips").iterdir()} == {
                p.name: p.read_bytes() for p in (tmp_path / "loop/features/clips").iterdir()
            }
            assert all(line.startswith(("prepare:", "  ")) for line in done.stderr.splitlines()), done.stderr
            print(f"{cpus} CPUs: {time.monotonic() - started:.1f} s")

    def test_a_job_with_nothing_to_do_starts_no_ray(self, music: Path, tmp_path: Path) -> None:
        in_turn(config_of(music, tmp_path / "out"))
        # a cluster that is not there: joining it would fail
        done = run_job(config_of(music, tmp_path / "out"), env={"RAY_ADDRESS": "127.0.0.1:1"})
        assert done.returncode == 0, done.stderr
        assert "0 to do" in done.stderr

    def test_an_error_on_a_worker_is_told_as_it_is(self, tmp_path: Path) -> None:
        tracks = pa.table({"path": ["/a", "/b"], "size": [1, 1]})
        fails = functools.partial(pa.Table.column, i="no such column")
        with Workers(TWO_CPUS, str(tmp_path)) as workers:
            with pytest.raises(KeyError, match="no such column"):
                list(workers.map(fails, tracks, limit=4))
            # one of these that is late would ask a Ray that has ended, which ends this process
            assert not running_threads("iter_threaded", "StreamingExecutor", "ray-data-metadata")

    def test_a_consumer_that_stops_leaves_no_thread_of_ray_data(self, tmp_path: Path) -> None:
        tracks = pa.table({"path": [f"/{number}" for number in range(64)], "size": [1] * 64})
        with Workers(TWO_CPUS, str(tmp_path)) as workers:
            for _ in workers.map(pa.Table.combine_chunks, tracks, limit=1):
                break
            assert not running_threads("iter_threaded", "StreamingExecutor", "ray-data-metadata")

    def test_answers_come_before_the_last_block_ends(self, tmp_path: Path) -> None:
        def wait_for_the_first_answer(tracks: pa.Table) -> pa.Table:
            patience = time.monotonic() + 60
            while tracks["path"][0].as_py() != "/0" and not (tmp_path / "answered").exists():
                assert time.monotonic() < patience
                time.sleep(0.05)
            return tracks

        tracks = pa.table({"path": [f"/{number}" for number in range(8)], "size": [1] * 8})
        with Workers(ClusterSettings(cpus=1), str(tmp_path)) as workers:
            answers = workers.map(wait_for_the_first_answer, tracks, limit=1)
            assert next(answers)["path"].to_pylist() == ["/0"]
            (tmp_path / "answered").touch()
            assert [answer["path"][0].as_py() for answer in answers] == [f"/{number}" for number in range(1, 8)]


def running_threads(*beginnings: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(beginnings)]
