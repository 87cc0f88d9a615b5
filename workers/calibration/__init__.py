"""Finding the range of each activation."""
