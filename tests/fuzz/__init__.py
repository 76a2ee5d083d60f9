"""Fuzzers: a module a kind, each with `case(seed, folder)`."""
