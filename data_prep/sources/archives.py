"""Members of zip and tar archives and Debian packages, read in place: nothing is unpacked."""

from __future__ import annotations

import contextlib
import functools
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from data_prep.sources import streams
from data_prep.sources.deb import open_data
from data_prep.sources.streams import GuardedStream, readable
from mtmoe.errors import DataError

ZIPS = (".zip", ".whl")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DEBS = (".deb",)
MAX_MEMBERS = 100_000
MAX_MEMBER_BYTES = 1 << 26  # of one that is read as a whole
UNSAFE = re.compile(r"(^|/)\.\.(/|$)|^/|^[A-Za-z]:|[\\\0]")
# RuntimeError: a member is encrypted, or (NotImplementedError) packed in a way that Python lacks
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, RuntimeError)


def is_archive(path: str | Path) -> bool:
    """Whether the name is that of an archive."""
    return str(path).endswith((*ZIPS, *TARS, *DEBS))


class Archive:
    """The plain files of an archive with safe names, in alphabetical order.

    Links, devices and names that lead out of a folder (`../x`, `/x`) are not there; `num_unsafe`
    counts them.

    Raises:
        DataError: the archive is damaged, or has more than MAX_MEMBERS members.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._damage():
            sizes = self._zip_sizes() if path.suffix in ZIPS else self._tar_sizes()
        self.sizes = {name: size for name, size in sorted(sizes) if not UNSAFE.search(name)}
        self.num_unsafe += sum(bool(UNSAFE.search(name)) for name, _ in sizes)

    @functools.cached_property
    def _zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    def _zip_sizes(self) -> list[tuple[str, int]]:
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        self._check_number(len(infos))
        plain = [info for info in infos if info.external_attr >> 28 in (0, 8)]
        self.num_unsafe = len(infos) - len(plain)
        self.packed = {info.filename: info.compress_size for info in plain}
        return [(info.filename, info.file_size) for info in plain]

    def _tar_sizes(self) -> list[tuple[str, int]]:
        sizes: list[tuple[str, int]] = []
        self.packed, self.num_unsafe = {}, 0
        total = 0
        with self._open_tar() as archive:
            for member in archive:
                self._check_number(len(sizes))
                total += member.size
                self._check_total(total)  # before its bytes are passed over
                if member.isfile():
                    sizes.append((member.name.removeprefix("./"), member.size))
                elif not member.isdir():
                    self.num_unsafe += 1
        return sizes

    @contextlib.contextmanager
    def _open_tar(self) -> Iterator[tarfile.TarFile]:
        if not self.path.name.endswith(DEBS):
            with tarfile.open(self.path) as tar:
                yield tar
        else:
            with open_data(self.path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                yield tar

    def _check_total(self, size: int) -> None:
        limit = max(streams.FREE_BYTES, streams.MAX_RATIO * self.path.stat().st_size)
        if size > limit:
            raise DataError(
                f"unpacked text must be at most {streams.MAX_RATIO} times its packed size, but "
                f"{self.path} gives over {limit:,} bytes. It may be a bomb; unpack it yourself if "
                "not."
            )

    def _check_number(self, number: int) -> None:
        if number > MAX_MEMBERS:
            raise DataError(
                f"an archive must have at most {MAX_MEMBERS:,} members, but {self.path} has more. "
                "Unpack it, and name the files in it."
            )

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            with readable(str(self.path)):
                yield
        except DAMAGE as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"archive must be whole, but {self.path} is damaged: {reason}. Fetch it again."
            ) from None

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[GuardedStream]:
        """A member as a stream.

        Raises:
            DataError: it is damaged, or gives much more than its packed size promises.
        """
        label = f"{self.path}:{name}"
        with self._damage():
            if self.path.suffix in ZIPS:
                with self._zip.open(name) as stream:
                    yield GuardedStream(stream, label, self.packed[name])
            else:
                with self._open_tar() as tar:
                    member = tar.extractfile(self._tar_member(tar, name))
                    assert member
                    packed = self.path.stat().st_size
                    yield GuardedStream(member, label, packed)

    def _tar_member(self, tar: tarfile.TarFile, name: str) -> tarfile.TarInfo:
        found = next((m for m in tar if m.isfile() and m.name.removeprefix("./") == name), None)
        assert found
        return found

    def read(self, name: str) -> bytes:
        """All bytes of a member.

        Raises:
            DataError: see `open`; or it has more than MAX_MEMBER_BYTES.
        """
        with self.open(name) as stream:
            data = stream.read(MAX_MEMBER_BYTES + 1)
        if len(data) > MAX_MEMBER_BYTES:
            raise DataError(
                f"a catalogue must have at most {MAX_MEMBER_BYTES:,} bytes, but {name} of "
                f"{self.path} has more. Leave it out."
            )
        return data
