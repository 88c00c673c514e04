"""From a scanned corpus to a finished folder: the steps of `prepare`, and what resumes them.

Input: the tracks of a corpus. Output: the files of a features folder. Workers run `tracks` and write `parts`; the
driver keeps the `ledger`, finds `duplicates` and `near_copies`, and writes the rest in `finishing`. Independent of
what runs the blocks.
"""
