"""Measured runs are kept as CSV files, without loss, and by several processes at once."""

import threading

import pytest

from pipelines.runtime.errors import UserError
from sweeps.reproduction.measurement_files import MeasurementFiles
from sweeps.reproduction.row import Row

ROW = Row(
    label="net",
    config_hash="a" * 64,
    seed="0",
    date="2026-11-28",
    seconds=12.345,
    versions={"python": "3.11.7", "torch": "2.15.0", "lightning": "2.6.6", "litlab": "0.1.0"},
    processor='2 x "Fast", processor',
    data="CIFAR10",
    data_files="folder",
    test_size=10_000,
    test_sha256="b" * 64,
    metrics={"test/acc": 0.1 + 0.2, "test/loss": 1e-300, "val/loss": float("inf"), "rise(val/loss)": 2.0},
    absent=frozenset({"gap(loss)"}),
)


def with_seed(seed, label="net"):
    return Row(label, "a" * 64, str(seed), metrics={"test/acc": seed / 7, f"only/{label}": 1.0})


@pytest.fixture
def files(tmp_path):
    return MeasurementFiles(tmp_path / "measurements")


def test_a_row_is_read_as_it_was_added_to_the_last_digit(files):
    files.add("1-mnist", [ROW])
    assert files.read(["1-mnist", "2-missing"]) == [ROW]


def test_further_metrics_add_columns_and_leave_what_was_there(files):
    files.add("1-mnist", [ROW])
    files.add("1-mnist", [with_seed(1, "other")])
    assert files.read(["1-mnist"]) == [ROW, with_seed(1, "other")]


def test_a_run_that_is_measured_again_replaces_its_row_and_one_of_another_configuration_stays(files):
    earlier = Row("net", "b" * 64, "0", date="2026-01-01")
    files.add("1-mnist", [earlier, with_seed(0)])
    files.add("1-mnist", [ROW])
    assert files.read(["1-mnist"]) == [earlier, ROW]


def test_the_file_does_not_depend_on_the_order_in_which_runs_finish(files, tmp_path):
    rows = [with_seed(seed) for seed in (10, 2, 1)]
    for row in rows:
        files.add("one", [row])
    files.add("two", sorted(rows, key=lambda row: int(row.seed)))
    one, two = ((tmp_path / "measurements" / f"{name}.csv").read_text() for name in ("one", "two"))
    assert one == two
    assert [row.seed for row in files.read(["one"])] == ["1", "2", "10"]


def test_several_writers_lose_no_row_and_leave_no_lock(files):
    def write(label):
        for seed in range(20):
            files.add("1-mnist", [with_seed(seed, label)])

    writers = [threading.Thread(target=write, args=(label,)) for label in ("one", "two", "three")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(files.read(["1-mnist"])) == 60
    assert [path.name for path in files.folder.iterdir()] == ["1-mnist.csv"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("12.345", "twelve"), "1-mnist.csv, line 2: could not convert string to float"),
        (lambda text: text[: text.rindex(",")], "1-mnist.csv, line 2: as many cells are expected as there are"),
        (lambda text: f"<<<<<<< HEAD\n{text}", "1-mnist.csv: there is no column label"),
    ],
)
def test_a_damaged_file_is_refused_and_not_overwritten(files, change, message):
    files.add("1-mnist", [ROW])
    path = files.folder / "1-mnist.csv"
    path.write_text(damaged := change(path.read_text()))
    with pytest.raises(UserError, match=message):
        files.read(["1-mnist"])
    with pytest.raises(UserError, match=message):
        files.add("1-mnist", [with_seed(1)])
    assert path.read_text() == damaged


def test_a_file_is_no_folder_of_measurements(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        MeasurementFiles(tmp_path / "file")
