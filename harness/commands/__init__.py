"""What the command line calls, one file a command: they join methods, metrics, runner, history and reports."""
