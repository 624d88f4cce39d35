"""The figures of the unroll engine, each measured within one process, and the references they are compared with."""
