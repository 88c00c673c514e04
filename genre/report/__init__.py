"""The leaderboard: a `Board` of predictions becomes a table, and the table becomes files and text.

Input: predictions of models on one split, and facts about corpus, search and machine. Output: predictions as Parquet,
leaderboard.json, .csv, .md and .html, the table for a terminal, and MODEL_CARD.md. It neither trains nor predicts.

    board = Board(title=..., classes=..., entries=[Entry("resnet", "network", runs=[SeedRun(0, probabilities)])], ...)
    print(text_table(write(board, Location.of("outputs/run/leaderboard"))))
    write(merge({"filtered": board, "random": other}), Location.of("outputs/compared"))
"""

from genre.report.board import Board, Entry, SeedRun, describe_hardware
from genre.report.facts import JUDGED, Compared, ComparedRow, CorpusFacts, Judged
from genre.report.files import best_network, read_board, write
from genre.report.merging import merge
from genre.report.search import Search, Status, Trial
from genre.report.table import Row, Table, tabulate
from genre.report.text import TEXT_WIDTH, text_table

__all__ = [
    "JUDGED",
    "TEXT_WIDTH",
    "Board",
    "Compared",
    "ComparedRow",
    "CorpusFacts",
    "Entry",
    "Judged",
    "Row",
    "Search",
    "SeedRun",
    "Status",
    "Table",
    "Trial",
    "best_network",
    "describe_hardware",
    "merge",
    "read_board",
    "tabulate",
    "text_table",
    "write",
]
