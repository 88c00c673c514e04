"""A job says now and then that it waits for machines."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

from ray_jobs.engine import machines


def test_it_asks_for_machines_every_half_minute_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For each block of a million files it would be the most that the driver does."""
    clock, up, asked = [0.0], [1], count()
    status = GetClusterStatusReply()
    status.autoscaling_state.failed_instance_requests.add().ray_node_type_name = "gpu"
    monkeypatch.setattr(machines, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(machines, "slots", lambda needed: (next(asked), up[0])[1])
    monkeypatch.setattr(machines, "_status", lambda: status)
    waiting = machines.Waiting([{"GPU": 1}])
    for second in range(100):
        clock[0] = float(second)
        waiting.say()
    assert next(asked) == 3
    assert capsys.readouterr().err == ""
    up[0], clock[0] = 0, 121.0
    waiting.say()
    assert capsys.readouterr().err == (
        "waiting for a machine with room for 1 x (1 GPU); "
        "gpu could not be launched, see monitor.log in Ray's logs on the head\n"
    )


def test_a_cluster_that_does_not_answer_does_not_end_the_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_answer() -> GetClusterStatusReply:
        raise RuntimeError("deadline exceeded")

    monkeypatch.setattr(machines, "time", SimpleNamespace(monotonic=iter([0.0, 60.0, 60.0]).__next__))
    monkeypatch.setattr(machines, "slots", lambda needed: 0)
    monkeypatch.setattr(machines, "_status", no_answer)
    machines.Waiting([{"CPU": 1}]).say()
    assert capsys.readouterr().err == "waiting for a machine with room for 1 x (1 CPU)\n"
