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
RUNS = $(DEMO)/runs/sdt $(DEMO)/runs/tet $(DEMO)/runs/trt
LAST = $(DEMO)/runs/*/checkpoints/last.pt
demo: $(VENV)/installed
	for method in sdt tet trt; do \
	  $(SNNPROBE) train --method $$method --save-epochs 1,5,10,20 --resume --out $(DEMO)/runs/$$method || exit; \
	done
	$(SNNPROBE) figure $(RUNS) -o $(DEMO)/figures/accuracy_curves.png
	$(SNNPROBE) figure $(RUNS) -o $(DEMO)/figures/loss_curves.png --figure loss_curves
	$(SNNPROBE) fisher $(DEMO)/runs/*/checkpoints/epoch_*.pt --out $(DEMO)/figures
	$(SNNPROBE) hessian $(LAST) --out $(DEMO)/figures --num-examples 128
	$(SNNPROBE) hessian $(LAST) --quantity density --num-probes 2 --out $(DEMO)/figures --num-examples 64
	$(SNNPROBE) landscape $(LAST) --out $(DEMO)/figures --num-examples 256
	$(SNNPROBE) landscape $(LAST) --plane --points 11 --objective sdt --out $(DEMO)/figures/plane --num-examples 256
	$(SNNPROBE) gradients $(LAST) --out $(DEMO)/figures
	$(SNNPROBE) timesteps $(LAST) --split test --num-steps 8 --out $(DEMO)/figures
	$(SNNPROBE) activity $(LAST) --split test --out $(DEMO)/figures
	$(VENV)/bin/python analyses/three_curvatures.py $(DEMO)/runs/sdt/checkpoints/last.pt --out $(DEMO)/figures --num-examples 128
	@echo "Figures and results are in $(DEMO)/figures."

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest -q

bench: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(VENV)/bin/python benchmarks/run.py

clean:
	rm -rf $(VENV) $(DEMO)
