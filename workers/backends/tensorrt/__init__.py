"""The TensorRT backend: an engine for every variant, its precision read back from the engine itself."""
