"""What can go wrong with a corpus.

Each message is one sentence: which file, what was expected and what was found, and what to do next.
"""


class DataError(Exception):
    """Anything that went wrong with a corpus."""


class RegistryError(DataError):
    """An entry of the registry is malformed."""


class UnknownCorpus(DataError):
    """No corpus of that id is registered."""


class UnknownFile(DataError):
    """The corpus has no file of that id."""


class UnknownSplit(DataError):
    """The corpus has no split of that name."""


class MissingExtra(DataError):
    """A package that only downloading needs is not installed."""


class DataFolderMissing(DataError):
    """`$ATTN_DATA` does not name a folder."""


class FileMissing(DataError):
    """The file is nowhere, and may not or cannot be downloaded."""


class WrongChecksum(DataError):
    """A file has another size or checksum than registered."""


class UnreadableFile(DataError):
    """A file cannot be opened, or a packed file or archive not be read to its end."""


class UnsafeArchive(DataError):
    """An archive holds a member that leads outside of it, or a link."""


class WrongMembers(DataError):
    """An archive does not hold the wanted member, or holds several where one text is asked for."""


class NotWritable(DataError):
    """The cache cannot be written to."""


class DiskFull(DataError):
    """There is not enough room for a download."""


class DownloadError(DataError):
    """No address delivered the file."""


class NoConnection(DownloadError):
    """The server cannot be reached, or went silent."""


class NotServed(DownloadError):
    """The server answers, but not with the file (404 and the like)."""


class CutDownload(DownloadError):
    """Fewer bytes arrived than were announced or are registered."""


class WrongDownload(DownloadError, WrongChecksum):
    """What arrived is another file than registered."""
