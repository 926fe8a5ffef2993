"""edgekit's training step beside that of other frameworks: ``make bench``, or ``python -m benchmarks.peers --help``.

    networks.py ── a PyTorch module, BatchNorm folded ── layers.py ── a list of layers and arrays ── a Job (job.py)
                                                                                                       │ a folder
    report.py ◄── measure.py: rounds, checks ◄── process.py ◄── JSON lines ──►  workers/serve.py ◄─────┘
                                                                                workers/NAME.py, one a peer

Every peer runs in a process and in a virtual environment of its own (environments.py), builds its graph from the same list of
layers, and trains the same arrays on the same batch. Modules that workers import need nothing but NumPy: each environment has it.
"""
