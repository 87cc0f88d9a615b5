"""The REST side of quantsieve. It never imports torch, onnxruntime, tensorrt or the workers package."""

__version__ = "0.1.0"
