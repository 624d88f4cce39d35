"""stub"""

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    pass
