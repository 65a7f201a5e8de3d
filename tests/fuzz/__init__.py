"""Random cases against the native core, each from a seed: what is called is in the modules, how
cases run, in child processes that may die, in runner.py. `python -m tests.fuzz --help`."""
