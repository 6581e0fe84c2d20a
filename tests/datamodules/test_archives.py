"""An archive that would write elsewhere is refused, even one whose checksum is right."""

import hashlib
import io
import tarfile

import pytest
from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10

from datamodules.cifar10 import CIFAR10


def member(name, content=b"evil"):
    found = tarfile.TarInfo(name)
    found.size = len(content)
    return found, content


def link(name, target, kind):
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found, b""


@pytest.mark.parametrize(
    "members",
    [
        [member("../evil")],
        [member("cifar-10-batches-py/../../evil")],
        [member("{outside}/evil")],
        [link("out", "{outside}", tarfile.SYMTYPE), member("out/evil")],
        [link("cifar-10-batches-py/out", "../..", tarfile.SYMTYPE), member("cifar-10-batches-py/out/evil")],
        [link("secret", "../secret", tarfile.LNKTYPE)],
        [link("device", "", tarfile.CHRTYPE)],
    ],
    ids=["parent", "parent of a folder", "absolute", "symbolic link", "relative link", "hard link", "device"],
)
def test_nothing_is_written_outside_of_the_data_folder(tmp_path, monkeypatch, members):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "secret").write_text("a secret")
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / TorchvisionCIFAR10.filename
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.name, info.linkname = (text.format(outside=outside) for text in (info.name, info.linkname))
            archive.addfile(info, io.BytesIO(content))
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(TorchvisionCIFAR10, "tgz_md5", md5)  # as if it were the official one
    with pytest.raises(FileNotFoundError, match=r"the download failed: .*(outside|special|absolute|corrupted)"):
        CIFAR10(data_dir=str(folder)).prepare_data()
    elsewhere = {entry.name for entry in tmp_path.rglob("*") if folder not in entry.parents}
    assert elsewhere == {"outside", "secret", "data"}
    assert (tmp_path / "secret").stat().st_nlink == 1
