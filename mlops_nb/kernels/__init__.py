"""Kernels forked from a server that has imported the heavy libraries already, and the papermill engine that uses them."""
