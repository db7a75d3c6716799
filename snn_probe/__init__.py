"""Train spiking neural networks and measure what training did to them over time.

Nothing heavy is imported here: ``import snn_probe`` and ``snnprobe --help`` stay fast, and results can be
re-plotted on a machine without torch.
"""

__version__ = "0.1.0"
