"""Which split or fold each track belongs to: balanced, by group, and the same after files are added.

Input: a table of tracks with genres, groups and published splits. Output: the same with a split or a fold for each
track. Independent of clips and of audio.
"""
