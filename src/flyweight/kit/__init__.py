"""The device kit: what is packed, what runs on the device (`run`, torch-free), and the way there and back by ssh."""
