"""What runs in a camera's child process. `pyav` is run as a module, `gstreamer` as a script."""
