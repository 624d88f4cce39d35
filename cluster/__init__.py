"""The application: command line, launchers, actors, monitoring. The only package that imports Ray."""
