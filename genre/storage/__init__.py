"""Files and folders at any address, what goes wrong with them, and who may write to them.

location   addresses that pyarrow can open; a file is written completely or not at all
exclusive  a file is created only where there is none
faults     which errors are the storage's and not the file's: they are retried, and never become rejects
lease      one job at a time writes to an output
"""

from genre.storage.location import Location, make_folder, sync

__all__ = ["Location", "make_folder", "sync"]
