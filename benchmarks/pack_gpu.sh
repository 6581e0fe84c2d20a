#!/usr/bin/env bash
# Packs what `benchmarks/gpu.py` and the tests need on a GPU machine without a network: wheels, this commit, and MNIST.
#
#     benchmarks/pack_gpu.sh FOLDER PYTHON_VERSION [INSTALLED] [DATA_DIR]
#
#     benchmarks/pack_gpu.sh --names [INSTALLED]     # prints the packages
#
# FOLDER is replaced. PYTHON_VERSION is that of the other machine, such as 3.12. INSTALLED is a file with the names of the
# packages that it has, one per line; torch and its libraries are never packed. DATA_DIR contains MNIST/raw. There:
#
#     python3 -m pip install --no-index --no-deps --target /tmp/site FOLDER/*.whl
#     mkdir /tmp/litlab && tar xzf FOLDER/litlab.tar.gz -C /tmp/litlab && python3 -m tarfile -e FOLDER/mnist.tar.xz /tmp/data
#     cd /tmp/litlab && export PYTHONPATH=$PWD:/tmp/site
#     python3 benchmarks/gpu.py --data-dir /tmp/data
#     python3 -m pytest -m gpu; python3 -m pytest -m "not slow and not services" -n 15 --dist loadfile
set -euo pipefail
# Of constraints.txt: neither torch nor its libraries, nor what only checks code, builds packages, needs a server or a
# cluster, or runs notebooks.
wanted() {
    grep -v '^#' constraints.txt | awk -F'==' '
        FILENAME != "-" { there[tolower($1)] = 1; next }
        { name = tolower($1); gsub("_", "-", name) }
        !(name in there) && name !~ /^(nvidia|cuda|torch|triton|ruff|mypy|types-|hatch|import-linter|grimp|execnet|ast-serialize|librt|trove-classifiers|tomlkit|psycopg|ray$|msgpack)/ &&
        name !~ /^(ipy|jupy|nb|asttokens|comm$|debugpy|executing|fastjsonschema|jedi|jsonschema|matplotlib-inline|mdit-py|nest-asyncio|parso|pexpect|platformdirs|prompt-toolkit|ptyprocess|pure-eval|pyzmq|referencing|rpds|stack-data|tornado|traitlets)/ {
            print $1 "==" $2
        }
    ' "$1" -
}
if [ "$1" = --names ]; then wanted "${2:-/dev/null}"; exit; fi
folder=$1 python_version=$2 installed=${3:-/dev/null} data_dir=${4:-}
most_mb=55
python=${PYTHON:-python3}
rm -rf "$folder" && mkdir -p "$folder"
wanted "$installed" > "$folder/wanted.txt"
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do platforms+=(--platform "${tag}_x86_64"); done
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version "$python_version" --implementation cp \
    "${platforms[@]}" --platform any -d "$folder" -r "$folder/wanted.txt"
rm "$folder/wanted.txt"
"$python" -m pip wheel -q --no-deps -w "$folder" .
git archive HEAD | gzip > "$folder/litlab.tar.gz"
if [ -n "$data_dir" ]; then tar cJf "$folder/mnist.tar.xz" -C "$data_dir" MNIST/raw; fi
du -sh "$folder"
if [ "$(du -sm "$folder" | cut -f1)" -gt "$most_mb" ]; then echo "more than $most_mb MB: is INSTALLED complete?" >&2; exit 1; fi
