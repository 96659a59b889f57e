"""A bundle's ONNX file as C99 sources for a microcontroller: static memory, no heap, int8 computed in integers."""
