"""The leaderboard: a `Board` of predictions becomes one table, and the table four files and a text.

board = Board(title=..., classes=..., entries=[Entry("resnet", "network", runs=[Run(0, probabilities)])], ...)
write(board, Location.of("outputs/run/leaderboard"))
print(text_table(board))
write(merge({"filtered": board, "random": other}), Location.of("outputs/compared"))
"""

from genre.report.board import Board, Entry, Run
from genre.report.facts import Compared, ComparedRow, CorpusFacts, Search, Trial
from genre.report.files import read_board, write
from genre.report.merging import merge
from genre.report.table import Row, Table, tabulate
from genre.report.text import text_table

__all__ = [
    "Board",
    "Compared",
    "ComparedRow",
    "CorpusFacts",
    "Entry",
    "Row",
    "Run",
    "Search",
    "Table",
    "Trial",
    "merge",
    "read_board",
    "tabulate",
    "text_table",
    "write",
]
