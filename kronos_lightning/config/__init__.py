"""Schema of every command's configuration, its validation, and the values that `conf/` asks the code for."""
