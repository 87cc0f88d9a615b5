"""What a decision becomes for deployment: Q/DQ graphs, calibration caches, and a check of such graphs."""
