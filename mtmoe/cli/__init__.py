"""The command line `mtmoe COMMAND`, one file a command."""
