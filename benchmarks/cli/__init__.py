"""What the commands share: the parser, exit codes, arguments, and texts that they print."""
