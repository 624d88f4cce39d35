"""Benchmark figures of the unroll engine, each measured in one process, and the reference implementations."""
