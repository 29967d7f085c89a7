"""Penstock measured side by side with what there is otherwise, and with the limits of both ends.

``python -m benchmarks`` runs everything on this machine and says which targets are reached. docs/benchmarks.md explains it.
"""
