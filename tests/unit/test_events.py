"""What listeners are told."""

from __future__ import annotations

from distill.events import Event, Note, NotesOnce, StageProgress


def test_a_note_is_told_once_and_everything_else_each_time() -> None:
    told: list[Event] = []
    once = NotesOnce(told.append)
    events = [Note("a"), StageProgress("s", 1, 2), Note("a"), Note("a", "warning"), StageProgress("s", 1, 2), Note("b")]
    for event in events:
        once(event)
    assert told == [events[0], events[1], events[3], events[4], events[5]]
