"""Threads share their process's rank until they install one of their own, and share nothing else."""

from threading import Thread

from dtrain.backend import state


def in_thread(function):
    result = []
    thread = Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


def test_a_new_thread_shares_the_rank_but_not_the_modes():
    state.local.grad_enabled = False
    state.local.modes.append("tracer")
    try:
        rank, grad, modes = in_thread(lambda: (state.local.rank, state.local.grad_enabled, state.local.modes))
    finally:
        state.local.grad_enabled = True
        state.local.modes.clear()
    assert rank is state.process_rank and grad is True and modes == []


def test_use_rank_holds_in_its_thread_only_and_is_put_back():
    own = state.RankState()
    with state.use_rank(own):
        assert state.local.rank is own and in_thread(lambda: state.local.rank) is state.process_rank
        own.generators["cpu"] = object()
    assert state.local.rank is state.process_rank and own.generators != state.process_rank.generators
