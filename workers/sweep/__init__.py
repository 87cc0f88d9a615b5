"""The phases of a sweep, one module each: prepare, calibrate, measure, select, verify, report."""
