"""What the screen shows when many ranks write: whole lines, and rank 0's bar kept alive."""

from __future__ import annotations

import os
import time

import pytest

from dtrain.launcher.output import Screen, Source, screens, write_all


class Paper:
    """Takes the bytes of two ranks' streams on one screen."""

    def __init__(self, terminal: bool = False) -> None:
        self.text = b""
        self.screen = Screen(self.write, terminal)
        self.zero = Source(self.screen, b"[rank 0] ", live=True)
        self.one = Source(self.screen, b"[rank 1] ", live=False)

    def write(self, data: bytes) -> None:
        self.text += data


@pytest.fixture
def paper():
    return Paper()


def test_lines_get_their_rank(paper):
    paper.one.feed(b"hello\nworld\n")
    paper.zero.feed(b"\n")
    assert paper.text == b"[rank 1] hello\n[rank 1] world\n[rank 0] \n"


def test_lines_that_come_in_pieces_are_not_torn(paper):
    paper.one.feed(b"one ha")
    paper.zero.feed(b"zero\n")
    paper.one.feed(b"lf\n")
    assert paper.text == b"[rank 0] zero\n[rank 1] one half\n"


def test_a_last_line_without_newline_is_shown_at_the_end(paper):
    paper.one.feed(b"no newline")
    paper.one.flush()
    assert paper.text == b"[rank 1] no newline\n"


def test_rank_0_s_bar_passes_as_it_is_written(paper):
    for part in (b"\r 10%", b"\r 20%", b"\r100%\n"):
        paper.zero.feed(part)
    assert paper.text == b"\r 10%\r 20%\r100%\n"


def test_a_bar_that_comes_at_once_is_its_last_state(paper):
    paper.zero.feed(b"\r 10%\r 20%\r100%\n")
    assert paper.text == b"100%\n"


def test_other_ranks_bars_are_their_last_state(paper):
    for part in (b"\r 10%", b"\r 20%", b"\r100%", b"\n"):
        paper.one.feed(part)
    paper.one.feed(b"10%\r")
    paper.one.feed(b"20%\r")
    paper.one.flush()
    assert paper.text == b"[rank 1] 100%\n[rank 1] 20%\n"


def test_a_bar_and_another_rank_s_line_in_a_file(paper):
    paper.zero.feed(b"\r 10%")
    paper.one.feed(b"hello\n")
    paper.zero.feed(b"\r 20%\n")
    assert paper.text == b"\r 10%\n[rank 1] hello\n 20%\n"


def test_a_bar_and_another_rank_s_line_on_a_terminal():
    paper = Paper(terminal=True)
    paper.zero.feed(b"\r 10%")
    paper.one.feed(b"hello\n")
    paper.zero.feed(b"\r 20%\n")
    assert paper.text == b"\r 10%\r\x1b[K[rank 1] hello\n 10%\r 20%\n"


def test_after_a_bar_that_wiped_itself_lines_have_their_rank_again():
    paper = Paper(terminal=True)
    paper.zero.feed(b"\r 10%\r     \r")
    paper.zero.feed(b"done\n")
    assert paper.text.endswith(b"[rank 0] done\n")


def test_windows_line_ends_are_no_bars(paper):
    paper.zero.feed(b"one\r\n")
    paper.one.feed(b"two\r\n")
    assert paper.text == b"[rank 0] one\n[rank 1] two\n"


def test_dots_of_rank_0_are_shown_as_they_grow(paper):
    paper.zero.feed(b"..")
    paper.zero.flush(idle=60)
    assert paper.text == b""
    paper.zero.since = time.monotonic() - 61
    paper.zero.flush(idle=60)
    assert paper.text == b"[rank 0] .."
    paper.one.feed(b"hello\n")
    paper.zero.feed(b"..\n")
    assert paper.text == b"[rank 0] ..\n[rank 1] hello\n[rank 0] ..\n"


def test_a_line_without_end_does_not_fill_the_memory(paper):
    for _ in range(20):
        paper.one.feed(b"x" * (1 << 18))
    assert len(paper.one.held) <= Source.LIMIT
    assert paper.text.count(b"x") >= 19 * (1 << 18) - Source.LIMIT


def test_a_hidden_stream_shows_nothing():
    Source(None, b"", live=True).feed(b"anything\n")


def test_two_descriptors_of_one_file_share_a_screen(tmp_path):
    one, other = (os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT) for name in ("a", "b"))
    try:
        assert len(set(screens(one, one))) == 1
        assert len(set(screens(one, other))) == 2
    finally:
        os.close(one)
        os.close(other)


def test_write_all_writes_all():
    reader, writer = os.pipe()
    write_all(writer)(b"x" * 1000)
    assert os.read(reader, 2000) == b"x" * 1000
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        write_all(writer)(b"x")
    os.close(writer)


def test_a_full_disk_loses_output_and_no_more():
    with open("/dev/full", "wb", buffering=0) as full:
        write_all(full.fileno())(b"lost")
