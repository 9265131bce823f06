"""`python -m ltbench`: the same as `ltbench`."""

from ltbench.benchmarks.cli.command import program

if __name__ == "__main__":
    program()
