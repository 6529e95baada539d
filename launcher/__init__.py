"""The launcher: starts N ranks of a script, watches them, says why they failed, and leaves nothing behind.

Standard library only: it starts on a login node without MPI, CUDA or NumPy. ``README.md`` beside this file is the map.
"""
