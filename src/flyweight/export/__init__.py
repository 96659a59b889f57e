"""From a trained network to what ships: ONNX, a parity check, a card, a bundle."""
