"""Configurations by prediction: greedy, optimal with a bound, and the whole trade-off."""
