from service.broker import make_celery
from service.settings import Settings


def test_a_child_has_time_to_start_on_a_busy_machine() -> None:
    """Celery kills one that is not up in time, and then each that it starts in its place."""
    assert make_celery(Settings()).conf.worker_proc_alive_timeout >= 60
