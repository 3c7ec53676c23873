# Every target sets itself up first (setup.sh); a second call skips that.
root := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
python := $(root).venv/bin/python

# What images install: parts of requirements.lock, for their Python; FFCV comes as a wheel of ours.
of_the_lock := --constraint requirements.lock --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --quiet

.PHONY: setup demo test check format lock ffcv-wheel bench soak readme full-size large-beton large-loader

setup:
	@$(root)setup.sh

demo: setup  ## sample, resize, stats, write-beton, train, eval, classify: two minutes on two cores
	@cd $(root) && $(python) benchmarks/demo.py

test: setup
	@cd $(root) && $(python) -m pytest -n 2 --dist loadfile

check: setup
	@cd $(root) && .venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy

format: setup
	@cd $(root) && .venv/bin/ruff format . && .venv/bin/ruff check --fix .

lock: setup  ## the newest versions that pyproject.toml allows
	@cd $(root) && .venv/bin/uv pip compile pyproject.toml --extra dev --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-header --quiet \
		--upgrade --output-file requirements.lock
	@cd $(root) && .venv/bin/uv pip compile --group prep $(of_the_lock) \
		--output-file docker/prep.lock
	@cd $(root) && .venv/bin/uv pip compile pyproject.toml $(of_the_lock) \
		--no-emit-package ffcv --output-file docker/train.lock

ffcv-wheel: setup  ## FFCV as one wheel for any Python, its libraries inside, in dist/
	@$(root)docker/ffcv-wheel.sh

soak: setup  ## kills, the demo's accuracy, what its network looks at; results in benchmarks/results/
	@cd $(root) && $(python) -m pytest -m soak

bench: setup  ## rates of prep on SRC=folder of originals, of the loader and a step on BETONS, or on drawn ones
	@cd $(root) && $(python) -m benchmarks.bench_resize $(SRC) --out benchmarks/results/resize.json
	@cd $(root) && $(python) -m benchmarks.bench_stats $(SRC) --out benchmarks/results/stats.json
	@cd $(root) && $(python) -m benchmarks.bench_prep $(SRC) --out benchmarks/results/prep.json
	@cd $(root) && $(python) -m benchmarks.bench_beton --out benchmarks/results/beton.json
	@cd $(root) && $(python) -m benchmarks.bench_loader $(BETONS) \
		--out benchmarks/results/loader.json
	@cd $(root) && $(python) -m benchmarks.bench_step $(firstword $(BETONS)) $(STEP) \
		--out benchmarks/results/step.json

readme: setup  ## the measured parts of README.md and docs/*.md, from benchmarks/results/
	@cd $(root) && $(python) -m benchmarks.measured

full-size: setup  ## resize 1,281,167 pictures, those in PICTURES repeated, killed halfway; 30 GB in WORK
	@cd $(root) && $(python) -m benchmarks.full_size $(PICTURES) $(WORK) \
		--out benchmarks/results/full-size.json

large-beton: setup  ## write-beton and verify of 1,281,167 records, those of SPLIT repeated, in WORK
	@cd $(root) && $(python) -m benchmarks.large_beton $(SPLIT) $(WORK) \
		--out benchmarks/results/large-beton.json

large-loader: setup  ## the loader on a raw beton of 11.8 GB, records of SPLIT repeated, in WORK; LEAVE GiB
	@cd $(root) && $(python) -m benchmarks.large_loader $(SPLIT) $(WORK) --leave $(LEAVE) \
		--out benchmarks/results/large-loader.json
