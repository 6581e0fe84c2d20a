"""Archives that would write outside the data folder are rejected, even with the correct checksum."""

import hashlib
import io
import tarfile

import pytest
from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10

from datamodules.cifar10 import CIFAR10


def member(name, content=b"evil"):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


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
def test_nothing_is_written_outside_the_data_folder(tmp_path, monkeypatch, members):
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
    monkeypatch.setattr(TorchvisionCIFAR10, "tgz_md5", md5)  # passes torchvision's check
    with pytest.raises(FileNotFoundError, match=r"the download failed: .*(outside|special|absolute|corrupted)"):
        CIFAR10(data_dir=str(folder)).prepare_data()
    outside_names = {entry.name for entry in tmp_path.rglob("*") if folder not in entry.parents}
    assert outside_names == {"outside", "secret", "data"}
    assert (tmp_path / "secret").stat().st_nlink == 1
