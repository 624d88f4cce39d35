"""The application shell: command line, processes, machines. The only room that imports Ray."""
