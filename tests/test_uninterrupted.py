"""Ctrl-C waits for the end of a block."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from mtmoe.errors import uninterrupted


@pytest.fixture(autouse=True)
def usual_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press():
    os.kill(os.getpid(), signal.SIGINT)


def run(presses, done):
    with uninterrupted():
        for _ in range(presses):
            press()
        done.append("the whole block")


def test_the_block_ends_first():
    done = []
    with pytest.raises(KeyboardInterrupt):
        run(1, done)
    assert done
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_second_one_does_not_wait():
    done = []
    with pytest.raises(KeyboardInterrupt):
        run(2, done)
    assert not done


def test_other_threads_and_errors_pass_through():
    thread = threading.Thread(target=lambda: uninterrupted().__enter__())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(ValueError, match="x"), uninterrupted():
        raise ValueError("x")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
