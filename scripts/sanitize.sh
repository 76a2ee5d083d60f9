#!/usr/bin/env bash
# The C part under ASan and UBSan: its tests, then new random cases of the kinds that reach it, for FUZZ_SECONDS. It is
# built in a copy of the tree, so that what is installed stays as it is; whatever a sanitizer finds ends the process.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$PWD/.venv/bin/python}
compiler=${CC:-gcc}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

cp -r pai_cli tests pyproject.toml README.md LICENSE "$copy"
cd "$copy"
find . -name '*.so' -delete
CFLAGS="-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" \
    LDFLAGS="-fsanitize=address,undefined" \
    "$python" -c 'from setuptools import setup; setup()' --quiet build_ext --inplace
ls pai_cli/spectral/compiled/_kernel*.so pai_cli/pruning/streaming/_sift*.so pai_cli/files/_lines*.so

# Both runtimes come before Python, which is built without them; so does the C++ library, whose exceptions ASan watches.
LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)"
LD_PRELOAD+=" $("$compiler" -print-file-name=libstdc++.so.6)"
export LD_PRELOAD ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$copy PYTHONDONTWRITEBYTECODE=1
"$python" -m pytest --basetemp="$copy/tmp" tests/test_compiled.py tests/test_edge_lines.py tests/test_power.py \
    tests/test_singular.py tests/test_layers.py tests/test_entering.py \
    tests/test_streaming.py --deselect tests/test_streaming.py::test_a_large_checkpoint_needs_little_memory # ASan takes more
FUZZ_SECONDS=${FUZZ_SECONDS:-600} "$python" tests/fuzz graphs spectra arrays
