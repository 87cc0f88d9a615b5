"""What a decision becomes for deployment: Q/DQ graphs and their check, calibration caches, lists for other tools."""
