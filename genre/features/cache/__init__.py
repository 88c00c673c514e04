"""The copy of clips that each machine keeps on a local disk, which all its processes map into memory.

Input: an open features folder. Output: clips in mapped files, complete or absent, within `cache.max_gb`.
"""

from genre.features.cache.clip_cache import CachedClips, ClipCache

__all__ = ["CachedClips", "ClipCache"]
