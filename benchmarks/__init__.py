"""How fast Cornu is beside Keras and beside code written by hand: `python -m benchmarks`.

`workloads/` states each model once in Cornu's and Keras's words and once by hand for each engine; `by_hand/` trains
and runs what was written by hand. A contender (a library on an engine) works in a process of its own (`worker.py`);
`turns.py` lets the contenders take turns in short blocks. `once.py` and `curves.py` do what a process does once and
how cost grows, `singles.py` measures that; `report.py` writes the tables; `check.py` compares with what was recorded.
"""
