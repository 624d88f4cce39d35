"""The commands, one file per family: `add(commands)` adds their parsers, and each imports what it needs when it runs."""
