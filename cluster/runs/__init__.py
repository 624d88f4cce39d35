"""Run directories: every path of a run, and creating, finding and resuming one."""
