# The stages of .ci/run, one function each. A line "CI: ..." goes into the closing report.
# shellcheck shell=bash

copy_tree() { # DIR: the tracked files, as they are now; nothing stale comes along
    mkdir -p "$1"
    git -C "$repo" ls-files -z | tar -C "$repo" --null -T - -cf - | tar -C "$1" -xf -
}

readme_command() { # WORD: the line of README that sets up a .venv and ends in a command with WORD
    grep -m 1 -E "^python3 -m venv \.venv && .*$1" "$repo/README.md"
}

readme_tests() {
    copy_tree "$work/a" && cd "$work/a"
    bash -c "$(readme_command pytest)"
}

slow_tests() { # what the default leaves out, in the same environment
    cd "$work/a"
    .venv/bin/pytest -m slow
}

doctests() {
    cd "$work/a"
    .venv/bin/pytest --doctest-modules ddpm_jax weights_convert
}

readme_main() { # alone on a fresh tree, with an empty compilation cache, and once more
    copy_tree "$work/b" && cd "$work/b"
    export XDG_CACHE_HOME=$work/b-cache
    local line job first second attempt
    line=$(readme_command 'ddpm-jax sample')
    job=${line##*&& }
    bash -c "$line"
    .venv/bin/ddpm-jax info samples.png
    for attempt in 1 2 3; do # other work on the machine may spoil one
        rm -r samples.png "$XDG_CACHE_HOME"
        first=$(seconds bash -c "$job")
        second=$(seconds bash -c "$job")
        test -s samples.png
        echo "CI: first run $first s, second $second s, attempt $attempt"
        [ "${first%.*}" -ge 20 ] || return 0
    done
    echo "the first run must take under 20 s"
    return 1
}

seconds() { # COMMAND...: how long it took
    local before=$EPOCHREALTIME
    "$@" 1>&2
    awk -v a="$before" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'
}

tools_install() { # into the environment of the tests, which by now have passed without torch
    cd "$work/a"
    # The CPU build where the index has one; it must be there before diffusers asks for torch.
    .venv/bin/pip install -q torch==2.13.0
    .venv/bin/pip install -q -e '.[test,parity,notebooks,docs,dev]'
    .venv/bin/pip install -q --no-deps open_clip_torch # for CLIP's vocabulary
    # Apart, since torchvision's operators do not load beside this torch: tests/parity/inception_peers.py
    .venv/bin/pip install -q --no-deps pytorch-fid torch-fidelity
    .venv/bin/pip install -q --no-deps --target .torchvision torchvision==0.28.0
    .venv/bin/pip list
}

parity() {
    cd "$work/a"
    .venv/bin/pytest -m parity
}

lint() {
    cd "$work/a"
    .venv/bin/ruff check
    .venv/bin/ruff format --check
}

types() {
    cd "$work/a"
    .venv/bin/pyright --pythonpath .venv/bin/python
}

notebooks() { # executed top to bottom, and in step with their readable pairs
    cd "$work/a"
    DDPM_JAX_FAST=1 .venv/bin/python notebooks/run.py
}

site() { # of the documents, offline; the notebooks as they are committed
    cd "$work/a"
    .venv/bin/sphinx-build -q -W --keep-going -j auto -c docs -d build/doctrees . build/site
    if grep -rlIF -e "$work" -e "$repo" build/site; then
        echo "these files name a folder of this machine"
        return 1
    fi
    echo "CI: $(find build/site -name '*.html' | wc -l) pages"
}

import_time() {
    cd "$work/a"
    .venv/bin/python .ci/import_time.py
}

wheel() { # built, then installed beside its dependencies alone, away from the source tree
    cd "$work/a"
    .venv/bin/python -m build -q --outdir "$work/dist"
    local file size
    file=$(echo "$work"/dist/*.whl)
    size=$(stat -c %s "$file")
    [ "$size" -lt 12000000 ] || { echo "the wheel has $size bytes, 12 MB are allowed"; return 1; }
    mkdir "$work/c" && cd "$work/c"
    local bin=$work/b/.venv/bin # of README's main job: what it needs and no more
    "$bin/pip" uninstall -q -y ddpm-jax
    "$bin/pip" install -q "$file"
    "$bin/ddpm-jax" sample
    "$bin/ddpm-jax" info samples.png
    "$bin/python" -m weights_convert --help >/dev/null
    echo "CI: $size bytes"
}

computing() { # the tests of what computes with jax
    echo tests/{models,sampling,guidance,learning,pipelines,text,training} tests/test_*.py
}

oldest() { # the floor of every dependency in pyproject.toml; numpy 2.0 wants Python 3.11 or 3.12
    copy_tree "$work/d" && cd "$work/d"
    local python=python3
    python3.11 -c '' 2>/dev/null && python=python3.11
    "$python" -m venv .venv
    "$python" .ci/floors.py >floors.txt
    .venv/bin/pip install -q -c floors.txt -e '.[test]'
    .venv/bin/pip list
    # The other dependencies are those of files, the hub, the command line and evaluation.
    # shellcheck disable=SC2046 # one word a path
    .venv/bin/pytest $(computing) tests/{weights,hub,cli,evaluation,tables,export}
}

newest() { # on newer releases, which need a newer Python; skipped without one
    local python
    python=$(newer_python) || { echo "CI: skipped: no Python 3.13 or 3.12 here"; return 0; }
    copy_tree "$work/f" && cd "$work/f"
    "$python" -m venv .venv
    .venv/bin/pip install -q -e '.[test]'
    .venv/bin/pip list
    # shellcheck disable=SC2046
    .venv/bin/pytest $(computing)
    echo "CI: $("$python" --version), $(.venv/bin/pip list | awk '$1 ~ /^(jax|flax)$/ {printf "%s %s ", $1, $2}')"
}

newer_python() { # the newest of 3.13 and 3.12 that runs, pyenv's unselected ones among them
    local candidate
    for candidate in python3.13 "$HOME"/.pyenv/versions/3.13.*/bin/python3.13 \
        python3.12 "$HOME"/.pyenv/versions/3.12.*/bin/python3.12; do
        if "$candidate" -c '' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}
