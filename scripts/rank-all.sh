#!/usr/bin/env bash
# Every method at every density: masks of one checkpoint, and one ranking of them all.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: scripts/rank-all.sh CKPT OUT_FOLDER [DENSITY...] [-- FLAG...]

Prunes CKPT by every method at every DENSITY (0.02 0.05 0.2 unless given) into OUT_FOLDER/METHOD-DENSITY.safetensors, then
ranks the folder: tables on standard output, the same in OUT_FOLDER/ranking.tsv. Masks that exist are kept, so the same
line goes on after an interruption, and with more densities it makes only those. What follows -- goes to every pai prune,
such as --model or --input-shape. From the environment:

  DATA=digits|PATH   also the methods that score with labelled samples: snip iter-snip force grasp
                     fisher hutchinson px prospr
  METHODS="NAMES"    these methods only; those that train (gem-miner edge-popup imp) run only where they are named
  SEED=N             of everything random, 0 unless given
  PAI=PATH           the command, where it is not on the path as pai

Exit status: 0 all made; 1 some could not be, each told in one line; 2 wrong usage; 130 interrupted.
USAGE
}

without_data="random uniform erk magnitude synflow synflow-l2 smart-ratio phew npb ntk-sap"
with_data="snip iter-snip force grasp fisher hutchinson px prospr"
training="gem-miner edge-popup imp"

pai=${PAI:-pai} data=${DATA:-} seed=${SEED:-0}

say() { printf 'rank-all: %s\n' "$*" >&2; }

interrupted() {
    say "interrupted; the same line goes on"
    exit 130
}

# A path that starts with a dash is no flag.
as_path() { case $1 in -*) printf './%s' "$1" ;; *) printf '%s' "$1" ;; esac; }

is_in() { case " $2 " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

case ${1:-} in -h | --help) usage && exit 0 ;; esac
if [ $# -lt 2 ]; then
    usage >&2
    exit 2
fi
checkpoint=$(as_path "$1") folder=$(as_path "$2")
shift 2
densities=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
        *[!0-9.eE-]* | -* | "") say "$1: is no density; densities follow OUT_FOLDER, flags of pai prune follow --" && exit 2 ;;
    esac
    densities="$densities $1"
    shift
done
if [ $# -gt 0 ]; then shift; fi # the --; the rest are flags of pai prune
densities=${densities:-0.02 0.05 0.2}
methods=${METHODS:-$without_data${data:+ $with_data}}

[ -e "$checkpoint" ] || { say "$checkpoint: no such file" && exit 1; }
command -v "$pai" >/dev/null || { say "$pai: no such command; install pai, or say where it is with PAI=" && exit 1; }
mkdir -p "$folder"
trap interrupted INT TERM
trap 'rm -f "$folder/.ranking.$$"' EXIT

# Masks of other settings would be taken for this run's: what it was made from stands in the folder.
made_from="seed $seed, data ${data:-none}, flags ${*:-none}, checkpoint $([ -d "$checkpoint" ] || cksum <"$checkpoint")"
if [ ! -e "$folder/.rank-all" ]; then
    printf '%s\n' "$made_from" >"$folder/.rank-all"
elif [ "$(cat "$folder/.rank-all")" != "$made_from" ]; then
    say "$folder: has masks made otherwise ($(cat "$folder/.rank-all")); take another folder"
    exit 1
fi

# One mask, unless it is there; $1 method, $2 density, then flags. What pai warns of is passed on, its last line when it fails.
make_mask() {
    local method=$1 density=$2 mask="$folder/$1-$2.safetensors" said status=0
    shift 2
    if [ -e "$mask" ]; then return 0; fi
    if [ -n "$data" ] && is_in "$method" "$with_data $training"; then set -- --data "$data" "$@"; fi
    if [ -e "${mask%.safetensors}.state.safetensors" ]; then set -- --resume "$@"; fi
    said=$("$pai" prune "$checkpoint" --method "$method" --density "$density" --seed "$seed" -o "$mask" "$@" \
        2>&1 >/dev/null) || status=$?
    if [ $status -eq 130 ]; then interrupted; fi
    if [ $status -ne 0 ]; then
        say "$method at $density: not made: $(printf '%s\n' "$said" | tail -n 1)"
        return 1
    fi
    printf '%s\n' "$said" | sed -n "s/^pai: warning:/rank-all: $method at $density:/p" >&2
}

failed=0 total=0
for method in $methods; do
    for density in $densities; do
        total=$((total + 1))
        make_mask "$method" "$density" "$@" || failed=$((failed + 1))
    done
done
if [ $failed -gt 0 ]; then say "$failed of $total masks could not be made"; fi
if [ $failed -eq $total ]; then exit 1; fi

status=0
"$pai" rank "$folder" --weights "$checkpoint" || status=$?
if [ $status -eq 130 ]; then interrupted; fi
"$pai" rank "$folder" --weights "$checkpoint" --format tsv >"$folder/.ranking.$$" 2>/dev/null || status=$?
if [ $status -eq 130 ]; then interrupted; fi
if [ -s "$folder/.ranking.$$" ]; then mv "$folder/.ranking.$$" "$folder/ranking.tsv"; fi
if [ $failed -gt 0 ]; then exit 1; fi
exit $status
