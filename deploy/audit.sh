#!/bin/sh
# Checks what the lock files pin with pip-audit and npm audit. Exit code 1 if either knows a vulnerability; 3, with a
# line that says so, if there was no feed to ask.
set -u
python="${1:-python3}"
cd "$(dirname "$0")/.." || exit 2
scratch="$(mktemp -d)" || exit 2
trap 'rm -rf "$scratch"' EXIT
found=0 unasked=0

if "$python" -m venv "$scratch/venv" && "$scratch/venv/bin/pip" install -q pip-audit >"$scratch/pip" 2>&1; then
  for lock in requirements.lock requirements-embedded.lock; do
    "$scratch/venv/bin/pip-audit" --disable-pip --require-hashes -r "$lock" >"$scratch/out" 2>&1
    case $? in
      0) echo "$lock: no known vulnerability" ;;
      *) if grep -qE '^(Name|Found [0-9]+ known)' "$scratch/out"; then found=1; cat "$scratch/out"
         else unasked=1; echo "$lock: NOT ASKED, no feed: $(tail -1 "$scratch/out")"; fi ;;
    esac
  done
else
  unasked=1
  echo "requirements: NOT ASKED, pip-audit cannot be installed: $(tail -1 "$scratch/pip" 2>/dev/null)"
fi

for lock in $(git ls-files '*package-lock.json'); do
  if ! command -v npm >/dev/null; then unasked=1; echo "$lock: NOT ASKED, no npm here"; continue; fi
  (cd "$(dirname "$lock")" && npm audit --package-lock-only >"$scratch/out" 2>&1)
  case $? in
    0) echo "$lock: no known vulnerability" ;;
    *) if grep -q 'vulnerabilit' "$scratch/out"; then found=1; cat "$scratch/out"
       else unasked=1; echo "$lock: NOT ASKED, no feed: $(grep -m1 -E 'npm (ERR!|error)' "$scratch/out")"; fi ;;
  esac
done

[ "$found" = 0 ] || exit 1
[ "$unasked" = 0 ] || exit 3
