"""Ranks of one node (processes or threads) talk through one shared segment of memory."""
