"""SIGTERM clears away what was begun."""

import signal
import sys
import threading

import pytest

from medseg.bundle.share.stopping import stoppable


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process at once")
def test_a_stop_runs_what_clears_up_and_the_handler_goes_afterwards():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        cleared = []
        with pytest.raises(KeyboardInterrupt), stoppable():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                cleared.append(True)
        assert cleared
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_who_listens_already_goes_on_listening():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_changes():
    seen = []

    def work():
        with stoppable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
