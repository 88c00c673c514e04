"""Messages from workers arrive once, also when an answer of the mailbox was lost."""

from __future__ import annotations

from ray_jobs.engine.reporter import Mailbox


def test_messages_are_kept_until_they_were_received() -> None:
    mailbox = Mailbox.__ray_metadata__.modified_class()  # type: ignore[attr-defined]
    mailbox.put("a")
    mailbox.put("b")
    assert mailbox.after(0) == ["a", "b"]
    assert mailbox.after(0) == ["a", "b"], "the first answer was lost"
    mailbox.put("c")
    assert mailbox.after(2) == ["c"]
    assert mailbox.after(3) == []
