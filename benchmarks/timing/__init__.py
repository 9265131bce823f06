"""What the parts of a job take on this machine: for `throughput`."""
