#!/usr/bin/env bash
# Builds and runs the probe on a machine with an NVIDIA GPU, its driver and nvcc; takes about four minutes.
set -euo pipefail
cd "$(dirname "$0")"
out=${OUT:-$(mktemp -d)}
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit --format=csv
nvcc -std=c++20 -O3 -arch=native -lineinfo -Xcompiler -fopenmp decode.cu -o "$out/decode"
# c: ceilings; g, d, p, w: the ways to run a step; 4: 4-bit weights too; k: checks only.
timeout 150 "$out/decode" cgdpw4 | tee "$out/decode.txt"
timeout 60 python3 ceilings.py | tee "$out/ceilings.txt"
nvidia-smi --query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw --format=csv
timeout 60 compute-sanitizer --tool memcheck "$out/decode" dk | tail -5
rm "$out/decode"
