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

# A whole study of one seed on the embedded digits: SDT, TET, TRT and its control, every probe; open $(DEMO)/report.html.
demo: $(VENV)/installed
	$(SNNPROBE) reproduce analyses/quickstart.toml --jobs 2 --out $(DEMO)
	$(VENV)/bin/python analyses/three_curvatures.py $(DEMO)/runs/sdt-seed0/checkpoints/epoch_0020.pt --out $(DEMO)/three-curvatures --num-examples 128
	@echo "Open $(DEMO)/report.html; figures are in $(DEMO)/figures and $(DEMO)/three-curvatures."

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n auto --dist loadfile

bench: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	for script in run training_step epoch floors processes; do $(VENV)/bin/python benchmarks/$$script.py || exit 1; done
	$(VENV)/bin/python benchmarks/growth.py -o docs/growth

clean:
	rm -rf $(VENV) $(DEMO)
