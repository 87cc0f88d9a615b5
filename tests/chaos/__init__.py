"""Faults at random moments, on both set-ups: run by ``make chaos``; a short form of it is in the tests."""
