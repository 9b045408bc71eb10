import pytest

from medseg.monitoring.throughput import Throughput, share


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def epoch(pace, clock, batches=4, wait=1.0, work=2.0, after=0.0, saving=0.0, resumed=False):
    pace.epoch_started(resumed)
    for _ in range(batches):
        pace.batch_requested()
        clock.now += wait
        pace.batch_received()
        clock.now += work
        pace.step_completed(8)
    clock.now += after
    pace.epoch_completed()
    clock.now += saving


def test_speed_and_waiting_leave_out_validation(clock):
    pace = Throughput(clock)
    epoch(pace, clock, after=100.0)
    assert pace.of_epoch() == (pytest.approx(8 / 3), pytest.approx(1 / 3))
    assert pace.seconds == 12


def test_a_row_covers_the_time_since_the_row_before(clock):
    pace = Throughput(clock)
    epoch(pace, clock, wait=0.0)
    assert pace.since_last() == (4.0, 0.0)
    epoch(pace, clock, wait=6.0, after=50.0)
    epoch(pace, clock, wait=6.0)
    assert pace.since_last() == (1.0, 0.75)
    assert pace.since_last() == (None, None)


def test_starting_workers_is_waiting(clock):
    pace = Throughput(clock)
    pace.epoch_started()
    clock.now += 3
    pace.batch_requested()
    clock.now += 1
    pace.batch_received()
    clock.now += 4
    pace.step_completed(1)
    assert pace.of_epoch()[1] == 0.5


def test_the_time_left_is_estimated_from_epochs_without_the_first(clock):
    pace = Throughput(clock)
    pace.epoch_started()
    assert pace.seconds_left(0, 4, 5) is None
    clock.now += 30
    pace.step_completed(8)
    assert pace.seconds_left(1, 4, 5) == 30 * 19
    pace = Throughput(clock)
    epoch(pace, clock, work=50.0)
    assert pace.seconds_left(4, 4, 5) == 4 * 204
    epoch(pace, clock, after=5.0, saving=3.0)
    assert pace.seconds_left(8, 4, 5) == 3 * 17
    pace.epoch_started()
    assert pace.seconds_left(8, 4, 5) == 3 * 20
    assert pace.seconds_left(10, 4, 5) == 2.5 * 20
    assert pace.seconds_left(20, 4, 5) == 0


def test_only_the_latest_epochs_count(clock):
    pace = Throughput(clock)
    for _ in range(20):
        epoch(pace, clock, work=100.0)
    for _ in range(10):
        epoch(pace, clock)
    assert pace.seconds_left(120, 4, 31) == 12


def test_the_time_left_of_an_endless_run_is_unknown(clock):
    pace = Throughput(clock)
    epoch(pace, clock)
    assert pace.seconds_left(4, None, 5) is None
    assert pace.seconds_left(4, 4, None) is None


def test_an_epoch_resumed_in_the_middle_is_the_sum_of_its_parts(clock):
    pace = Throughput(clock)
    epoch(pace, clock)
    epoch(pace, clock, saving=1.0)
    pace.epoch_started()
    clock.now += 5
    pace.step_completed(8)
    state = pace.state_dict()
    clock.now += 1000
    other = Throughput(clock)
    other.load_state_dict(state)
    epoch(other, clock, batches=3, saving=500.0, resumed=True)
    assert (other.seconds, other.batches, other.samples) == (14, 4, 32)
    other.epoch_started()
    assert other.seconds_left(12, 4, 4) == 13
    assert other.seconds == 0


def test_a_share_is_never_above_one():
    assert share(3, 2) == 1.0
