"""Tests; they mirror the package. (opustools installs a top-level `tests` too: this file wins.)"""
