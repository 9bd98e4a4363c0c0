"""Speed of scGPT at its published size, official code against ours: ``bench/model_speed.py scgpt``.

Usage: ``python bench/scgpt_speed.py --official .oracles/scgpt/bin/python``; options and what is timed: see there.
"""

from __future__ import annotations

import sys

from model_speed import main

if __name__ == "__main__":
    main(["scgpt", *sys.argv[1:]])
