"""What is measured of each variant, sample by sample, and how sure we are of it."""
