"""``python -m snn_probe`` is ``snnprobe``."""

from snn_probe.cli import main

if __name__ == "__main__":
    main()
