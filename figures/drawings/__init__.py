"""The drawings of the chapters. In each file, `draw` returns a Drawing and its alt text."""
