"""The compute side of quantsieve: Celery workers, the engine and its backends."""
