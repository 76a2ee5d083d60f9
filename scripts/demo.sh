#!/bin/sh
# The main job on what ships: prune, analyze, rank, mine, sample. Tables on the screen, files in demo/.
set -eu
pai=${PAI:-pai}
cd "$(dirname "$0")/.."
mkdir -p demo/best
checkpoint=sample_masks/resnet20.safetensors

say() { printf '\n$ %s\n' "$*"; }
run() { say pai "$@"; "$pai" "$@"; }

for density in 0.02 0.05 0.2; do
    for method in random uniform erk magnitude synflow; do
        say pai prune $checkpoint --method $method --density $density --force -o demo/$method-$density.safetensors
        "$pai" prune $checkpoint --method $method --density $density --force -o demo/$method-$density.safetensors >/dev/null
    done
done

run analyze demo/synflow-0.05.safetensors --weights $checkpoint
run analyze demo --summary
run rank demo --weights $checkpoint
run mine demo/*-0.05.safetensors --support 3 --max-results 20
run sample $checkpoint --method erk --density 0.05 --population 20 --force -o demo/best/erk-0.05.safetensors
run rank demo/erk-0.05.safetensors demo/best/erk-0.05.safetensors --weights $checkpoint
