"""Tests here use the workers' installation."""

from tests.workers.conftest import installation, migrated

__all__ = ["installation", "migrated"]
