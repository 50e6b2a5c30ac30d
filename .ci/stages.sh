# The stages of .ci/run, one function each. A line "CI: ..." goes into the closing report.
# shellcheck shell=bash

copy_tree() { # DIR: the tracked files, as they are now; nothing stale comes along
    mkdir -p "$1"
    git -C "$repo" ls-files -z | tar -C "$repo" --null -T - -cf - | tar -C "$1" -xf -
}

readme_command() { # WORD: the line of README that sets up a .venv and ends in a command with WORD
    grep -m 1 -E "^python3 -m venv \.venv && .*$1" "$repo/README.md"
}

install() { # VENV ARGUMENTS...: a fresh environment with these requirements, in the current folder
    [ -d "$1" ] || python3 -m venv "$1"
    "$1/bin/pip" install -q "${@:2}"
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

tools_install() { # one environment for all that follows but the wheel and the oldest set
    copy_tree "$work/c" && cd "$work/c"
    # The CPU build where the index has one; it must be there before diffusers asks for torch.
    install .venv torch==2.13.0
    install .venv -e '.[test,parity,notebooks,docs,dev]'
    install .venv --no-deps open_clip_torch # for CLIP's vocabulary
    # Apart, since torchvision's operators do not load beside this torch: tests/parity/inception_peers.py
    install .venv --no-deps pytorch-fid torch-fidelity
    install .venv --no-deps --target .torchvision torchvision==0.28.0
    .venv/bin/pip list
}

parity() {
    cd "$work/c"
    .venv/bin/pytest -m parity
}

lint() {
    cd "$work/c"
    .venv/bin/ruff check
    .venv/bin/ruff format --check
}

types() {
    cd "$work/c"
    .venv/bin/pyright --pythonpath .venv/bin/python
}

notebooks() { # executed top to bottom, and in step with their readable pairs
    cd "$work/c"
    DDPM_JAX_FAST=1 .venv/bin/python notebooks/run.py
}

site() { # of the documents, offline; the notebooks as they are committed
    cd "$work/c"
    .venv/bin/sphinx-build -q -W --keep-going -j auto -c docs -d build/doctrees . build/site
    if grep -rlIF -e "$work" -e "$repo" build/site; then
        echo "these files name a folder of this machine"
        return 1
    fi
    echo "CI: $(find build/site -name '*.html' | wc -l) pages"
}

import_time() {
    cd "$work/c"
    .venv/bin/python .ci/import_time.py
}

wheel() { # built, then installed alone in an empty environment, away from the source tree
    cd "$work/c"
    .venv/bin/python -m build -q --outdir "$work/dist"
    local file size
    file=$(echo "$work"/dist/*.whl)
    size=$(stat -c %s "$file")
    [ "$size" -lt 12000000 ] || { echo "the wheel has $size bytes, 12 MB are allowed"; return 1; }
    mkdir "$work/e" && cd "$work/e"
    install .venv "$file"
    .venv/bin/ddpm-jax sample
    .venv/bin/ddpm-jax info samples.png
    .venv/bin/python -m weights_convert --help >/dev/null
    echo "CI: $size bytes"
}

oldest() { # the floor of every dependency in pyproject.toml; numpy 2.0 wants Python 3.11 or 3.12
    copy_tree "$work/d" && cd "$work/d"
    local python=python3
    python3.11 -c '' 2>/dev/null && python=python3.11
    "$python" -m venv .venv
    "$python" .ci/floors.py >floors.txt
    install .venv -c floors.txt -e '.[test]'
    .venv/bin/pip list
    .venv/bin/pytest
}

newest() { # what computes with jax, on newer releases, which need a newer Python; skipped without one
    local python
    python=$(newer_python) || { echo "CI: skipped: no Python 3.13 or 3.12 here"; return 0; }
    copy_tree "$work/f" && cd "$work/f"
    "$python" -m venv .venv
    install .venv -e '.[test]'
    .venv/bin/pip list
    .venv/bin/pytest tests/{models,sampling,guidance,learning,pipelines,text,training} tests/test_*.py
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
