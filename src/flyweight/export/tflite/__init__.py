"""An ONNX graph as a `.tflite` file, written directly in LiteRT's own schema: `graph.py` builds, `operators.py` knows."""
