# Two commands do everything: `make demo` and `make test`. Both make the environment in .venv first.
PYTHON ?= python3
BIN := .venv/bin
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
endif

.PHONY: demo test chaos lint format clean benchmark gui screenshots gui

# HD-BET brings PyTorch, several hundred MB: it is installed in CI, and elsewhere with `make HD_BET=1 …`.
ifeq ($(CI),true)
HD_BET ?= 1
endif
READY := .venv/ready$(if $(HD_BET),-hd-bet)

.venv/ready: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('Python 3.10 or newer is needed') if sys.version_info < (3, 10) else None"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[simulation,test]"
	touch $@

.venv/ready-hd-bet: .venv/ready
	$(BIN)/python -m pip install --quiet "torch==2.13.0"
	$(BIN)/python -m pip install --quiet "torch==2.13.0" --editable ".[hd-bet]"
	touch $@

demo: .venv/ready
	rm -rf demo
	$(BIN)/cmbdetector simulate --scans 1 --seed 2026 --microbleeds 6 --output demo/dataset
	$(BIN)/cmbdetector detect demo/dataset/sub-01/swi/sub-01_swi.nii.gz --brain-mask simple --output demo/result

# Twice: Slicer's libraries and TensorFlow do not live in one process. What both need is made once.
SHARED := $(CURDIR)/.pytest_cache/shared
PYTEST := -n 2 --dist loadfile --no-loadscope-reorder --durations=10 --cov
test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(SHARED)
	CMBDETECTOR_TEST_SHARED=$(SHARED) $(BIN)/python -m pytest -m "not host" $(PYTEST) --cov-report=
	CMBDETECTOR_TEST_SHARED=$(SHARED) $(BIN)/python -m pytest -m host $(PYTEST) --cov-append --cov-report=term

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Kills, full disks, damage: ten minutes, a table of losses in docs/chaos.md. make chaos ONLY=disks runs a part.
chaos: .venv/ready
	$(BIN)/python Testing/Chaos $(if $(ONLY),--only $(ONLY),--table docs/chaos.md) $(if $(SEED),--seed $(SEED))

benchmark: .venv/ready
	$(BIN)/python benchmarks/inference.py

# Opens the module without 3D Slicer: make gui, or make gui SCAN=scan.nii.gz
gui: .venv/ready
	PYTHONPATH=Testing $(BIN)/python -m SlicerHost $(if $(SCAN),"$(SCAN)")

# Makes the README's pictures of the module anew, from the scan of the demo.
screenshots: .venv/ready
	test -d demo/dataset || $(BIN)/cmbdetector simulate --scans 1 --seed 2026 --microbleeds 6 --output demo/dataset
	$(BIN)/python Testing/screenshots.py demo/dataset/sub-01/swi/sub-01_swi.nii.gz docs/images

clean:
	rm -rf .venv demo build dist *.egg-info
