"""From the layer table to the fallback list: pure functions over values."""
