"""What the commands here have in common: options, outputs; jobs are those of `codec.running`."""
