"""Which configurations are the same."""

from pipelines.config.cli import parse_config
from pipelines.config.identity import changed_values, config_hash


def test_the_hash_ignores_the_seed_and_the_data_folder_only():
    def hash_of(*args):
        return config_hash(parse_config("fit", ["mnist-mlp", *args]).resolved())

    plain = hash_of()
    assert plain == hash_of("--seed_everything", "3") == hash_of("--data.data_dir", "elsewhere")
    assert len({plain, hash_of("--model.dropout", "0.3"), hash_of("--data.n_train", "250")}) == 3


def test_changed_values_lists_both_values_and_ignores_the_data_folder():
    before = {"data": {"class_path": "a.A", "init_args": {"data_dir": "here", "n": 1}}, "model": {"class_path": "b.B"}}
    now = {"data": {"class_path": "a.A", "init_args": {"data_dir": "there", "n": 2}}, "model": {"class_path": "b.C"}}
    assert changed_values(before, now) == {"data.n": (1, 2), "model": ("b.B", "b.C")}
    assert changed_values(before, before) == {}
