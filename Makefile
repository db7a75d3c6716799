# Two commands: `make demo` and `make test`. Each makes its own virtual environment first; only Python >= 3.11 is needed.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
SNNPROBE = $(VENV)/bin/snnprobe

.PHONY: demo test bench clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "snn_probe needs Python 3.11 or later; give it as make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

# Train SDT, TET and TRT on the embedded digits, run every probe, leave figures in $(DEMO)/figures.
demo: $(VENV)/installed
	for method in sdt tet trt; do \
	  $(SNNPROBE) train --method $$method --save-epochs 1,5,10,20 --resume --out $(DEMO)/runs/$$method || exit; \
	done
	$(SNNPROBE) figure $(DEMO)/runs/sdt $(DEMO)/runs/tet $(DEMO)/runs/trt -o $(DEMO)/figures/accuracy_curves.png
	$(SNNPROBE) figure $(DEMO)/runs/sdt $(DEMO)/runs/tet $(DEMO)/runs/trt -o $(DEMO)/figures/loss_curves.png --figure loss_curves
	$(SNNPROBE) fisher $(DEMO)/runs/*/checkpoints/epoch_*.pt --out $(DEMO)/figures
	@echo "Figures and results are in $(DEMO)/figures."

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest -q

bench: $(VENV)/installed
	$(VENV)/bin/python benchmarks/run.py

clean:
	rm -rf $(VENV) $(DEMO)
