#!/usr/bin/env bash
# The life of a model on the command line: train two kinds, compare them, use the better one, ship it.
set -euo pipefail

for number in $(seq 1 300); do
    printf '%s\t%s\n' "$number" "$((number + 1))"
done > successors.tsv

common=(training.minutes=0.1 data.source.tokenizer=char data.target.tokenizer=char)
antiphon train successors.tsv --out lstm "${common[@]}" model.encoder.kind=lstm model.decoder.kind=lstm
antiphon train successors.tsv --out transformer "${common[@]}" model.encoder.kind=transformer model.decoder.kind=transformer
antiphon compare lstm transformer successors.tsv --metrics exact,cer

echo 41 | antiphon predict lstm --jsonl beam=4 n_best=2
cp -r lstm/best successor-model
echo 41 | antiphon predict successor-model
