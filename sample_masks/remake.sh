#!/bin/sh
# Makes everything in this folder again, to the byte on the same kind of machine:
#     sample_masks/remake.sh            here
#     sample_masks/remake.sh FOLDER     elsewhere, to compare
# PAI names the command if it is not on the path.
set -eu
pai=${PAI:-pai}
cd "${1:-$(dirname "$0")}"
export SOURCE_DATE_EPOCH=1767225600 # the clock in the files' metadata; any fixed moment does

"$pai" init resnet20 --classes 10 --seed 0 -o resnet20.safetensors --force
for method in random uniform erk magnitude synflow; do
    for density in 0.02 0.05 0.2; do
        "$pai" prune resnet20.safetensors --method $method --density $density --seed 0 --device cpu \
            --packed --force -o $method-$density.safetensors >/dev/null
    done
done
