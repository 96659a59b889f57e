"""An ONNX graph as a `.tflite` file, written in LiteRT's own schema: `graph.py` builds, `operators.py` translates."""
