"""Tests of mtmoe.inference, and the tiny checkpoint that others use."""
