"""The leaderboard: a `Board` of predictions becomes one table, and the table four files and a text.

board = Board(title=..., classes=..., entries=[Entry("resnet", "network", runs=[Run(0, probabilities)])], ...)
write(board, Location.of("outputs/run/leaderboard"))
print(text_table(board))
"""

from genre.report.board import Board, CorpusFacts, Entry, Run
from genre.report.files import read_board, write
from genre.report.table import Row, Table, tabulate
from genre.report.text import text_table

__all__ = ["Board", "CorpusFacts", "Entry", "Row", "Run", "Table", "read_board", "tabulate", "text_table", "write"]
